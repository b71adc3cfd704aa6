package journal

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"strings"

	"otrproxy/proxy/causes"
	"otrproxy/proxy/hostname"
)

// A Journal is the log, in which nobody is named: a JID is hashed, unless the configuration asks
// for it in clear.
type Journal struct {
	*slog.Logger
	inClear func() bool
	key     [32]byte // of this run
}

// New writes to a logger, nil for none.
func New(to *slog.Logger, inClear func() bool) *Journal {
	if to == nil {
		to = slog.New(slog.DiscardHandler)
	}
	l := &Journal{Logger: to, inClear: inClear}
	rand.Read(l.key[:])
	return l
}

// Name is a JID or domain as it may stand in the log. Its hash is the same within one run.
func (l *Journal) Name(jid string) string {
	if l.inClear() {
		return jid
	}
	m := hmac.New(sha256.New, l.key[:])
	m.Write([]byte(jid))
	return "#" + hex.EncodeToString(m.Sum(nil)[:5])
}

// Redact is a failure's text as it may stand in the log: without persons' names. A domain is
// nobody's, and commands in the text need it as it is.
func (l *Journal) Redact(f *causes.Failure, names ...string) string {
	text := f.Text
	if f.Quoted != "" {
		text = strings.ReplaceAll(text, f.Quoted, "")
	}
	if f.Host != "" {
		names = append(names, f.Host)
	}
	for _, name := range names {
		text = strings.NewReplacer(name, l.Name(name), hostname.ASCII(name), l.Name(name)).Replace(text)
	}
	return text
}

// Record is a line at a level of slog's.
func (l *Journal) Record(level int, what string, err error) {
	l.Log(context.Background(), slog.Level(level), what, "err", err)
}
