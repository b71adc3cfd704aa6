package proxy

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"strings"
)

// A journal is the log, in which nobody is named: a JID is hashed, unless the configuration asks
// for it in clear.
type journal struct {
	*slog.Logger
	inClear func() bool
	key     [32]byte // of this run
}

// newJournal writes to a logger, nil for none.
func newJournal(to *slog.Logger, inClear func() bool) *journal {
	if to == nil {
		to = slog.New(slog.DiscardHandler)
	}
	l := &journal{Logger: to, inClear: inClear}
	rand.Read(l.key[:])
	return l
}

// name is a JID or domain as it may stand in the log. Its hash is the same within one run.
func (l *journal) name(jid string) string {
	if l.inClear() {
		return jid
	}
	m := hmac.New(sha256.New, l.key[:])
	m.Write([]byte(jid))
	return "#" + hex.EncodeToString(m.Sum(nil)[:5])
}

// redact is a failure's text as it may stand in the log: without persons' names. A domain is
// nobody's, and commands in the text need it as it is.
func (l *journal) redact(f *Failure, names ...string) string {
	text := f.Text
	if f.Quoted != "" {
		text = strings.ReplaceAll(text, f.Quoted, "")
	}
	if f.host != "" {
		names = append(names, f.host)
	}
	for _, name := range names {
		text = strings.NewReplacer(name, l.name(name), ascii(name), l.name(name)).Replace(text)
	}
	return text
}

// record is a line at a level of slog's.
func (l *journal) record(level int, what string, err error) {
	l.Log(context.Background(), slog.Level(level), what, "err", err)
}
