package otrlayer

import (
	"errors"
)

// Saved waits until what has changed so far in what is known of contacts is on disk, and
// returns why it is not.
func (a *Account) Saved() error { return a.store.AllSaved() }

// onDisk is deferred by what a person asks for: it waits until that is on disk, without the
// lock, and adds to err why it is not.
func (a *Account) onDisk(err *error) { *err = errors.Join(*err, a.store.Saved(&a.fps.LineFile, true)) }
