package filter

import (
	"bytes"
	"encoding/base64"
	"hash/maphash"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"otrproxy/stanza"
)

// A Table lists what may pass: elements by namespace, then by local name.
type Table map[string]Forms

// Forms are elements of one namespace, by local name.
type Forms map[string]*Form

// A Form is what an element may hold. The zero Form is an element with nothing in it.
type Form struct {
	Attrs Attrs // by name; others are left out
	Text  Check // of its character data; nil for none but white space
	Own   Forms // children in its own namespace
	Inner Table // children in others
	// Says has its text pass with the mark of clear text only.
	Says bool
	// Any has everything below it pass as it is, words and all: data that no program takes
	// for a contact's words. Wrapped messages are left out all the same.
	Any bool
	// Sound is a further check of an element that passes as it is; nil for none.
	Sound func(stanza.Element) bool
	// Opaque has unknown elements in it pass, too, where there is no word in them.
	Opaque bool
	// Again remembers which elements without children have passed lately, out and in, so that
	// the same element need not be checked again. Programs repeat some word for word; nil is for
	// all others.
	Again *[2]memory
}

func again() *[2]memory { return new([2]memory) }

// anything is an element that passes with everything in it.
var anything = Form{Any: true}

// Attrs are the attributes an element may have.
type Attrs map[string]Check

// A Check reports whether a text or an attribute's value is of a form.
type Check func([]byte) bool

// of is the form of a child; nil where there is none.
func (f *Form) of(parent, el stanza.Element) *Form {
	ns := el.NS()
	if bytes.Equal(ns, parent.NS()) {
		if c := f.Own[string(el.Local())]; c != nil {
			return c
		}
	}
	return f.Inner[string(ns)][string(el.Local())]
}

// of is the form of an element; nil where none is listed.
func (t Table) of(el stanza.Element) *Form { return t[string(el.NS())][string(el.Local())] }

// find looks an element up in several tables.
func find(tables []Table, el stanza.Element) *Form {
	ns, local := el.NS(), el.Local()
	for _, t := range tables {
		if f := t[string(ns)][string(local)]; f != nil {
			return f
		}
	}
	return nil
}

// declares reports whether an attribute declares a namespace.
func declares(name string, value []byte) bool {
	return name == "xmlns" || strings.HasPrefix(name, "xmlns:") && uri(value)
}

// fits reports whether an element is of a form, with nothing beside. With a voice, on the
// way in, it must be able to stay as it was written, too: without prefixes, and with nothing
// in it that has to be quoted or marked.
func (f *Form) fits(el stanza.Element, v *Voice) bool {
	known := f.memoryOf(el, v)
	switch {
	case known == nil:
		return f.holds(el, v)
	case known.has(el.Raw()) && v.leaves(el.Raw()):
		return true
	case !f.holds(el, v):
		return false
	}
	known.keep(el.Raw())
	return true
}

// holds is fits for what is not known.
func (f *Form) holds(el stanza.Element, v *Voice) bool {
	switch {
	case f.Any:
		return v == nil || v.plainBelow(el)
	case v != nil && (f.Says || !plainName(el)):
		return false
	}
	for name, raw := range el.AttrNames() {
		if name == "xmlns" || v == nil && (declares(name, raw) || strings.HasPrefix(name, "xmlns:") && nsName(raw)) {
			continue
		}
		value := stanza.AttrValue(raw)
		if check := f.Attrs[name]; !(check != nil && check(value)) && !(name == "xml:lang" && language(raw)) || !v.leaves(value) {
			return false
		}
	}
	if text := el.TextBytes(); f.Text == nil && !blank(text) || f.Text != nil && (!f.Text(text) || !v.leaves(text)) {
		return false
	}
	for c := range el.Children() {
		if inner := f.of(el, c); !(inner != nil && inner.fits(c, v)) && !(f.Opaque && v == nil && wordless(c)) {
			return false
		}
	}
	return f.Sound == nil || f.Sound(el)
}

// memoryOf is the memory for an element whose verdict depends on its bytes alone; nil for any
// other. Such an element has no character references, so its values stand in its bytes as they
// are: where the whole imitates nothing, no value does.
func (f *Form) memoryOf(el stanza.Element, v *Voice) *memory {
	if f.Again == nil || el.HasChildren() || !plainName(el) || bytes.IndexByte(el.Raw(), '&') >= 0 {
		return nil
	}
	if v == nil {
		return &f.Again[0]
	}
	return &f.Again[1]
}

// wordless reports whether nothing in an element can be a word that a person typed. Names
// and namespaces are its program's; attributes and texts are numbers, times, hashes and
// namespaces.
func wordless(el stanza.Element) bool {
	if !nsName(el.NS()) || !tagName(el.Local()) || !opaqueToken(el.TextBytes()) {
		return false
	}
	for attr, raw := range el.AttrNames() {
		if !(attr == "xmlns" || strings.HasPrefix(attr, "xmlns:")) && !(tagName([]byte(attr)) && opaqueToken(stanza.AttrValue(raw))) && !(attr == "xml:lang" && language(raw)) {
			return false
		}
	}
	for c := range el.Children() {
		if !wordless(c) {
			return false
		}
	}
	return true
}

// sober reports whether the prefixes and the namespaces that an element declares, and those
// in it, are as programs write them. They change nothing that is looked at, so a word could
// stand there.
func sober(el stanza.Element) bool {
	if !soberly(el) {
		return false
	}
	for d := range el.Descendants() {
		if !soberly(d) {
			return false
		}
	}
	return true
}

func soberly(el stanza.Element) bool {
	if before, _, prefixed := bytes.Cut(el.Name(), []byte{':'}); prefixed && !prefixName(before) {
		return false
	}
	for attr, raw := range el.AttrNames() {
		declared, declares := strings.CutPrefix(attr, "xmlns")
		if !declares {
			continue
		}
		value := stanza.AttrValue(raw)
		if declared != "" && !prefixName([]byte(strings.TrimPrefix(declared, ":"))) || len(value) > 0 && !nsName(value) && !bytes.Equal(value, el.NS()) {
			return false
		}
	}
	return true
}

// Checks.

func words([]byte) bool { return true }

func blank(s []byte) bool { return len(bytes.TrimSpace(s)) == 0 }

// noBlank is machine-made text without blanks, or nothing.
func noBlank(s []byte) bool {
	for i := range len(s) {
		if s[i] < '!' || s[i] > '~' {
			return false
		}
	}
	return true
}

// token is a name that programs make: short, and without blanks.
func token(s []byte) bool { return len(s) > 0 && len(s) <= 128 && noBlank(s) }

// matches is a check by a regular expression. There are hundreds, so each is compiled when it is
// first used.
func matches(expr string) Check {
	var compiled atomic.Pointer[regexp.Regexp]
	return remembering(func(s []byte) bool {
		re := compiled.Load()
		if re == nil { // who comes at the same time compiles it, too
			re = regexp.MustCompile("^(?:" + expr + ")$")
			compiled.Store(re)
		}
		return re.Match(s)
	})
}

// remembering is a check that costs something, and knows again what has passed it lately:
// programs say the same of themselves each time.
func remembering(check Check) Check {
	var passed memory
	return func(s []byte) bool {
		if passed.has(s) {
			return true
		}
		if !check(s) {
			return false
		}
		passed.keep(s)
		return true
	}
}

// A memory holds some of what has passed lately.
type memory [16]atomic.Pointer[string]

// maxRemembered bounds what is kept of each, in bytes.
const maxRemembered = 256

var memorySeed = maphash.MakeSeed()

func (m *memory) place(s []byte) *atomic.Pointer[string] {
	return &m[maphash.Bytes(memorySeed, s)%uint64(len(m))]
}

func (m *memory) has(s []byte) bool {
	known := m.place(s).Load()
	return known != nil && *known == string(s)
}

func (m *memory) keep(s []byte) {
	if len(s) <= maxRemembered {
		kept := string(s)
		m.place(s).Store(&kept)
	}
}

// oneOf is one of some words.
func oneOf(list ...string) Check {
	return func(s []byte) bool {
		s = bytes.TrimSpace(s)
		for _, word := range list {
			if word == string(s) {
				return true
			}
		}
		return false
	}
}

var (
	show      = oneOf("", "away", "chat", "dnd", "xa")
	number    = matches(`\s*[+-]?[0-9]{1,10}\s*`)
	priority  = matches(`\s*[+-]?[0-9]{1,3}\s*`)
	hexDigits = matches(`[0-9A-Fa-f\s]*`)
	uri       = matches(`[A-Za-z][A-Za-z0-9+.-]*:[!-~]+`)
	tokens    = matches(`[a-z0-9-]*(?: [a-z0-9-]+)*`)
	algorithm = matches(`[a-z0-9-]{1,20}`)
	language  = matches(`[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8})*`)
	boolean   = oneOf("true", "false", "0", "1")
	// software is how programs call themselves and their versions: a short line.
	software = line(100)
	// secret is a room's password, which no program shows.
	secret = line(64)
	// base64Text is what programs make of bytes; blanks make it wider than base64.
	base64Text = matches(`[A-Za-z0-9+/=\s]*`)
	address    = matches(`[^\s<>"'&]+(?:/[^<>"'&]*)?`)
	// unblank is an address without blanks, which make words of one.
	unblank    = matches(`[^\s<>"'&]+`)
	bareJID    = matches(`[^\s<>"'&/]+`)
	opaqueName = matches(`[0-9A-Fa-f-]{8,64}`)

	// What programs call elements and namespaces, and their prefixes.
	tagName    = matches(`[a-z][A-Za-z0-9-]{0,31}`)
	nsName     = matches(`[a-z][a-z0-9]{0,31}(?:[.:/_#~+-]{1,3}[a-z0-9]{1,31}){1,12}[/#]?`)
	prefixName = matches(`[a-z][a-z0-9]{0,7}`)
	// knownNS are namespaces as values.
	knownNS = matches(`(?:urn:xmpp:|jabber:|http://jabber\.org/protocol/)[a-z0-9:#-]{1,60}`)
	hexName = matches(`[0-9a-fA-F-]{8,128}`)
)

// opaqueToken is what no person writes as a word: nothing, a number, a truth, a time, a hash
// or a UUID, a known namespace.
func opaqueToken(s []byte) bool {
	return blank(s) || number(s) || boolean(s) || stamp(s) || knownNS(s) || hexName(s) && bytes.ContainsAny(s, "0123456789")
}

// short is a check for text in one line of so many bytes.
func short(limit int) Check {
	return func(s []byte) bool { return len(s) <= limit && oneLine(s) }
}

// line is a check for text in one line of so many characters.
func line(limit int) Check {
	return func(s []byte) bool { return utf8.RuneCount(s) <= limit && oneLine(s) }
}

// oneLine reports whether a text has no end of a line, and nothing that is not seen.
func oneLine(s []byte) bool {
	for len(s) > 0 {
		r, size := utf8.DecodeRune(s)
		s = s[size:]
		if r >= utf8.RuneSelf && unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) || r < ' ' || r == 0x7f {
			return false
		}
	}
	return true
}

// programName is how programs call themselves, their systems and their versions: up to
// eight words in 64 characters, of which two at most are words in small letters alone, as
// in "Debian GNU/Linux 12 on arm64". A sentence has more, or a mark at its end.
func programName(s []byte) bool {
	fields := bytes.Fields(s)
	small := 0
	for _, f := range fields {
		if smallLetters(f) {
			small++
		}
	}
	return len(s) <= 64 && len(fields) <= 8 && small <= 2 && programChars(s)
}

var (
	smallLetters = matches(`\p{Ll}+`)
	programChars = matches(`[\p{Latin}\p{Greek}\p{Cyrillic}\p{M}\p{Nd}._+:,@#*/()\[\]&'~ -]*`)
)

// base64Bytes is the base64 of some bytes: whole groups and nothing between them but the
// ends of lines.
func base64Bytes(s []byte) bool {
	s = bytes.TrimSpace(s)
	_, err := base64.StdEncoding.DecodeString(string(s))
	return len(s) > 0 && err == nil
}

// stampForms are those of XEP-0082, and of XEP-0091 before it.
var stampForms = []string{time.RFC3339Nano, oldStamp}

const oldStamp = "20060102T15:04:05"

func stampOld(s []byte) bool {
	_, err := time.Parse(oldStamp, string(s))
	return err == nil
}

func stamp(s []byte) bool {
	_, ok := Moment(string(s))
	return ok
}

// Moment reads a time (XEP-0082, XEP-0091); false for none.
func Moment(s string) (time.Time, bool) {
	for _, form := range stampForms {
		if t, err := time.Parse(form, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
