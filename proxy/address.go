package proxy

import (
	"sync"

	"mellium.im/xmpp/jid"

	"otrproxy/stanza"
)

// An address is a JID as it was written, read.
type address struct {
	full, bare string
	resource   bool
	ok         bool
}

// addresses remembers how JIDs as written are read, so that a passed stanza costs no
// parsing. All sessions share it: a household has the same contacts. It is bounded; what
// was not met for long is forgotten.
type addresses struct {
	mu       sync.RWMutex
	met, old map[string]address
}

const (
	maxAddresses = 4096 // in each of the two
	longAddress  = 256  // bytes; longer ones are read each time
)

// of reads the JID in an attribute.
func (k *addresses) of(el stanza.Element, attr string) address {
	raw := el.RawAttr(attr)
	if len(raw) == 0 {
		return address{}
	}
	k.mu.RLock()
	a, ok := k.met[string(raw)]
	if !ok {
		a, ok = k.old[string(raw)]
	}
	k.mu.RUnlock()
	if ok {
		return a
	}
	if j, err := jid.Parse(el.Attr(attr)); err == nil {
		full := j.String()
		a = address{full: full, bare: full[:len(j.Bare().String())], resource: j.Resourcepart() != "", ok: true}
	}
	if len(raw) <= longAddress {
		k.keep(string(raw), a)
	}
	return a
}

func (k *addresses) keep(raw string, a address) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.met == nil || len(k.met) >= maxAddresses {
		k.met, k.old = map[string]address{}, k.met
	}
	k.met[raw] = a
}
