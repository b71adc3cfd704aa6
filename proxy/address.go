package proxy

import (
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
	"mellium.im/xmpp/jid"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/stanza"
)

// An address is a JID as it was written, read.
type address struct {
	written    string // as it stands there, references resolved
	full, bare string
	resource   bool
	ok         bool
	mimics     bool // it is the service contact's or has the proxy's mark, or looks so
	asService  bool // its resource, which is a name in a room, looks like the service contact's
	// also is another bare JID that some programs read this one as; "" for none. RFC 7622
	// keeps characters that RFC 6122 replaces.
	also string
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
	return k.read(el, attr, raw)
}

// A lastAddress is the address that a goroutine has met last: mostly it meets that again.
type lastAddress struct {
	raw string
	address
}

// again is of for such a goroutine.
func (k *addresses) again(last *lastAddress, el stanza.Element, attr string) address {
	raw := el.RawAttr(attr)
	switch {
	case len(raw) == 0:
		return address{}
	case string(raw) != last.raw:
		last.raw, last.address = string(raw), k.read(el, attr, raw)
	}
	return last.address
}

func (k *addresses) read(el stanza.Element, attr string, raw []byte) address {
	k.mu.RLock()
	a, ok := k.met[string(raw)]
	if !ok {
		a, ok = k.old[string(raw)]
	}
	k.mu.RUnlock()
	if ok {
		return a
	}
	a = readJID(el.Attr(attr))
	if len(raw) <= longAddress {
		k.keep(string(raw), a)
	}
	return a
}

// A lastRule is the rule that a goroutine has asked for last: of one configuration, about one
// contact.
type lastRule struct {
	cfg     *config.Config
	contact string
	rule    *config.Rule
}

// by is the rule of a configuration.
func (l *lastRule) by(cfg *config.Config, account, contact string) *config.Rule {
	if l.cfg != cfg || l.contact != contact {
		*l = lastRule{cfg, contact, cfg.RuleFor(account, contact)}
	}
	return l.rule
}

// readJID reads a JID.
func readJID(s string) address {
	j, err := mapped(s)
	if err != nil {
		return address{written: s, mimics: otrlayer.Alike(domainOf(s), serviceJID)}
	}
	full := j.String()
	a := address{written: s, full: full, bare: full[:len(j.Bare().String())], resource: j.Resourcepart() != "", ok: true,
		mimics: otrlayer.Alike(j.Domainpart(), serviceJID) || otrlayer.Mentions(j.Localpart()) || otrlayer.Mentions(j.Resourcepart())}
	a.asService = a.resource && (otrlayer.Alike(j.Resourcepart(), serviceName) || otrlayer.Alike(j.Resourcepart(), serviceJID))
	if also := caseFolded(a.bare); also != a.bare {
		a.also = also
	}
	return a
}

// caseFolded is a bare JID as Nodeprep and IDNA2003 read it (RFC 3454 table B.2): with all
// letters small, one by one, "ss" for the German letter, and the Greek final sigma as any.
func caseFolded(bare string) string {
	if strings.IndexFunc(bare, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return bare
	}
	return norm.NFKC.String(cases.Fold().String(norm.NFKC.String(bare)))
}

// domainOf is the domain in what may be no JID.
func domainOf(s string) string {
	s, _, _ = strings.Cut(s, "/")
	return s[strings.LastIndexByte(s, '@')+1:]
}

// mapped reads a JID. Servers map some characters to nothing before they look at one (RFC
// 3454 table B.1); joiners only where they do not belong (RFC 5892 appendix A.1).
func mapped(s string) (jid.JID, error) {
	j, err := jid.Parse(s)
	for _, gone := range []string{mappedToNothing, mappedToNothing + "\u200c\u200d"} {
		if err == nil {
			break
		}
		j, err = jid.Parse(strings.Map(func(r rune) rune {
			if strings.ContainsRune(gone, r) {
				return -1
			}
			return r
		}, s))
	}
	return j, err
}

// mappedToNothing are the characters of RFC 3454 table B.1, but for joiners.
const mappedToNothing = "\u00ad\u034f\u1806\u180b\u180c\u180d\u200b\u2060\ufe00\ufe01\ufe02\ufe03\ufe04\ufe05\ufe06\ufe07\ufe08\ufe09\ufe0a\ufe0b\ufe0c\ufe0d\ufe0e\ufe0f\ufeff"

func (k *addresses) keep(raw string, a address) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.met == nil || len(k.met) >= maxAddresses {
		k.met, k.old = map[string]address{}, k.met
	}
	k.met[raw] = a
}
