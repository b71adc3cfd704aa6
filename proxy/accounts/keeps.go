package accounts

import (
	"sync"

	"otrproxy/otrlayer"
)

// keeps adds up what the accounts keep, as that changes.
type keeps struct {
	mu  sync.Mutex
	sum otrlayer.Kept
}

func (k *keeps) add(before, now otrlayer.Kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sum.Add(before, now)
}

func (k *keeps) All() otrlayer.Kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sum
}
