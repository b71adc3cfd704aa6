package address

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
	"mellium.im/xmpp/jid"

	"otrproxy/otrlayer/text"
	"otrproxy/stanza"
)

// A JID is one as it was written, read.
type JID struct {
	Written    string // as it stands there, references resolved
	Full, Bare string
	Resource   bool
	OK         bool
	Mimics     bool // it is the service contact's or has the proxy's mark, or looks so
	AsService  bool // its resource, which is a name in a room, looks like the service contact's
	// Also is another bare JID that some programs read this one as; "" for none. RFC 7622
	// keeps characters that RFC 6122 replaces.
	Also string
}

// Cache remembers how JIDs as written are read, so that a passed stanza costs no
// parsing. All sessions share it: a household has the same contacts. It is bounded; what
// was not met for long is forgotten.
type Cache struct {
	mu       sync.RWMutex
	met, old map[string]JID
}

const (
	maxAddresses = 4096 // in each of the two
	longAddress  = 256  // bytes; longer ones are read each time
)

// Of reads the JID in an attribute.
func (k *Cache) Of(el stanza.Element, attr string) JID {
	raw := el.RawAttr(attr)
	if len(raw) == 0 {
		return JID{}
	}
	return k.read(el, attr, raw)
}

// A Last is the address that a goroutine has met last: mostly it meets that again.
type Last struct {
	raw string
	JID
}

// Again is of for such a goroutine.
func (k *Cache) Again(last *Last, el stanza.Element, attr string) JID {
	raw := el.RawAttr(attr)
	switch {
	case len(raw) == 0:
		return JID{}
	case string(raw) != last.raw:
		last.raw, last.JID = string(raw), k.read(el, attr, raw)
	}
	return last.JID
}

func (k *Cache) read(el stanza.Element, attr string, raw []byte) JID {
	k.mu.RLock()
	a, ok := k.met[string(raw)]
	if !ok {
		a, ok = k.old[string(raw)]
	}
	k.mu.RUnlock()
	if ok {
		return a
	}
	a = Read(el.Attr(attr))
	if len(raw) <= longAddress {
		k.keep(string(raw), a)
	}
	return a
}

// Read reads a JID.
func Read(s string) JID {
	j, err := mapped(s)
	if err != nil {
		return JID{Written: s, Mimics: text.Alike(domainIn(s), ServiceJID)}
	}
	full := j.String()
	a := JID{Written: s, Full: full, Bare: full[:len(j.Bare().String())], Resource: j.Resourcepart() != "", OK: true,
		Mimics: text.Alike(j.Domainpart(), ServiceJID) || text.Mentions(j.Localpart()) || text.Mentions(j.Resourcepart())}
	a.AsService = a.Resource && (text.Alike(j.Resourcepart(), ServiceName) || text.Alike(j.Resourcepart(), ServiceJID))
	if also := CaseFolded(a.Bare); also != a.Bare {
		a.Also = also
	}
	return a
}

// CaseFolded is a bare JID as Nodeprep and IDNA2003 read it (RFC 3454 table B.2): with all
// letters small, one by one, "ss" for the German letter, and the Greek final sigma as any.
func CaseFolded(bare string) string {
	if strings.IndexFunc(bare, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return bare
	}
	return norm.NFKC.String(cases.Fold().String(norm.NFKC.String(bare)))
}

// domainIn is the domain in what may be no JID.
func domainIn(s string) string {
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

func (k *Cache) keep(raw string, a JID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.met == nil || len(k.met) >= maxAddresses {
		k.met, k.old = map[string]JID{}, k.met
	}
	k.met[raw] = a
}

// Bare is an address as a person writes it, in the form in which it is known.
func Bare(s string) (string, error) {
	j, err := jid.Parse(strings.TrimPrefix(s, "xmpp:"))
	if err != nil {
		return "", fmt.Errorf("%q is not an address, such as bob@example.org", s)
	}
	return j.Bare().String(), nil
}

// Ours reports whether an address is the proxy's own, or below it.
func Ours(a JID) bool {
	return a.Bare == ServiceJID || strings.HasSuffix(a.Bare, "@"+ServiceJID)
}

// Domain reads a JID that is a domain and nothing else.
func Domain(s string) (string, error) {
	j, err := jid.Parse(s)
	if err != nil {
		return "", err
	}
	if j.Localpart() != "" || j.Resourcepart() != "" || j.Domainpart() == "" {
		return "", errors.New("not a domain")
	}
	return j.Domainpart(), nil
}

// ServiceName is how the proxy itself is called, as a contact and in rooms.
const ServiceName = "otrproxy"

// ServiceJID is the proxy itself, as a contact. Nothing to or from it passes.
const ServiceJID = "otrproxy.localhost"

// DomainOf is the domain of a bare JID.
func DomainOf(jid string) string { return jid[strings.IndexByte(jid, '@')+1:] }
