package relay

import (
	"strings"
	"sync"

	"otrproxy/proxy/address"
	"otrproxy/stanza"
)

// requests are what a client has asked and has not been answered yet. Answers to anything
// else, and what an archive was not asked for, are forged or stale and do not reach it.
type requests struct {
	mu       sync.Mutex
	open     map[question]int
	order    []question
	archives map[archive]question // by what names their results
}

// A question is a request (RFC 6120 section 8.2.3): the id and whom it is for.
type question struct{ id, to string }

// An archive is named in its results by whose it is and by the query (XEP-0313).
type archive struct{ of, query string }

const (
	maxAsked    = 4096 // requests without an answer; of more, the oldest are given up
	maxArchives = 256
)

// home is where requests without an address go: the account, and its server on its
// behalf. They answer with any of these names (RFC 6120 section 8.1.2.1), and so do
// requests to them.
func (i *identity) home(a address.JID) string {
	if !a.OK || a.Full == i.jid || a.Full == i.full() || a.Full == address.DomainOf(i.jid) {
		return ""
	}
	return a.Full
}

// request notes a request.
func (k *requests) request(s *Session, root stanza.Element, to address.JID) {
	q := question{root.Attr("id"), s.home(to)}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open == nil {
		k.open = map[question]int{}
	}
	k.open[q]++
	k.order = append(k.order, q)
	if len(k.order) >= 2*maxAsked {
		k.shorten()
	}
	for el := range root.Children() {
		if ns, local := string(el.NS()), string(el.Local()); (strings.HasPrefix(ns, "urn:xmpp:mam:") && local == "query" || ns == "urn:xmpp:inbox:1" && local == "inbox") && len(k.archives) < maxArchives {
			if k.archives == nil {
				k.archives = map[archive]question{}
			}
			k.archives[archive{q.to, el.Attr("queryid")}] = q
		}
	}
}

// shorten gives up the oldest requests, and forgets the order of those answered.
func (k *requests) shorten() {
	left := k.order[:0]
	for i, q := range k.order {
		switch {
		case k.open[q] == 0:
		case len(k.order)-i > maxAsked:
			delete(k.open, q)
		default:
			left = append(left, q)
		}
	}
	k.order = left
}

// answered reports whether an answer is to a request, which is settled with it.
func (k *requests) answered(s *Session, root stanza.Element, from address.JID) bool {
	q := question{root.Attr("id"), s.home(from)}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open[q] == 0 {
		q.to = from.Full // asked before we knew that this is our own name
	}
	if k.open[q] == 0 {
		return false
	}
	if k.open[q]--; k.open[q] == 0 {
		delete(k.open, q)
	}
	if len(k.open) == 0 { // most of the time there is none
		k.open, k.order = nil, nil
	}
	for a, of := range k.archives {
		if of == q && !early(root) {
			delete(k.archives, a)
		}
	}
	if len(k.archives) == 0 {
		k.archives = nil
	}
	return true
}

// early reports whether an answer comes before the results: those of the first
// versions of XEP-0313 do, which have no <fin/> in it.
func early(root stanza.Element) bool {
	for el := range root.Children() {
		if string(el.Local()) == "fin" {
			return false
		}
	}
	return root.Attr("type") == "result"
}

// asksFor reports whether a result is one of an open query of an archive.
func (k *requests) asksFor(s *Session, from address.JID, query string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.archives[archive{s.home(from), query}]
	return ok
}
