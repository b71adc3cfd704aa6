// Package stanza reads and edits XMPP's XML (RFC 6120 sections 4 and 11).
//
// One strict scanner yields every top-level element of a stream as the very
// bytes that came in, with the spans of its elements and attributes; edits
// replace spans and leave all other bytes alone. What is checked is what is
// sent: there is no second parser.
//
// The package knows nothing of OTR, of policy or of sockets.
package stanza

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync"
)

const (
	cdataStart = "<![CDATA["
	cdataEnd   = "]]>"

	bufferSize = 16 << 10 // what a stream holds that has something to say: a TLS record
)

// A Scanner splits one stream into its header, elements and end. It is strict:
// what XML 1.0, Namespaces in XML or RFC 6120 section 11.1 forbid ends the
// stream with a *SyntaxError.
type Scanner struct {
	r   io.Reader
	lim Limits

	buf   []byte // bytes read and not yet consumed
	desk  *desk  // where buf is; nil where that is larger, or nothing is there
	start int    // where the present item begins
	pos   int    // next byte to look at
	text  int    // where the present run of character data begins

	cur     int32 // innermost open element, -1 between stanzas
	depth   int
	opened  bool // header seen
	closed  bool
	inCDATA bool
	rescans int // bytes of unfinished tags looked at more than once
	keep    int // bindings of the header, kept for every stanza
	scope   int32

	declared []byte // the header's own xmlns:prefix declarations, as written

	st Stanza
}

// NewScanner returns a Scanner of a whole stream, header first.
func NewScanner(r io.Reader, lim Limits) *Scanner {
	return &Scanner{r: r, lim: lim.withDefaults(), cur: -1, scope: -1}
}

// Parse scans one element outside a stream; undeclared names are in the
// namespace jabber:client.
func Parse(raw []byte) (*Stanza, error) {
	const open = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
	s := NewScanner(io.MultiReader(bytes.NewReader([]byte(open)), bytes.NewReader(raw)), Limits{Bytes: len(raw) + len(open) + 1})
	defer s.giveBack()
	if _, err := s.Next(); err != nil {
		return nil, err
	}
	st, err := s.Next()
	if err != nil {
		return nil, err
	}
	if st.Kind != KindElement || len(st.Raw) != len(raw) {
		return nil, malformed("not exactly one element")
	}
	return st.Clone(), nil
}

// Buffered is what has been read from the stream and not yet been returned. It
// must hold no more than white space where a stream restarts (RFC 6120 section
// 5.4.3.3, CVE-2011-0411).
func (s *Scanner) Buffered() []byte { return s.buf[s.pos:] }

// Next returns the next piece of the stream. After KindClose or where the stream
// ends between two elements it returns io.EOF, inside an element
// io.ErrUnexpectedEOF, and for what the rules of XMPP forbid a *SyntaxError.
func (s *Scanner) Next() (*Stanza, error) {
	if s.closed { // what follows the end belongs to nobody and is not looked at
		return nil, io.EOF
	}
	s.begin()
	for {
		done, err := s.advance()
		if err == nil && s.pos-s.start > s.lim.Bytes || len(s.buf)-s.start > s.lim.Bytes && !done {
			return nil, tooMuch("an element of more than %d bytes", s.lim.Bytes)
		}
		if err != nil && !errors.Is(err, errMore) {
			return nil, err
		}
		if done {
			return &s.st, nil
		}
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
}

// begin forgets the item returned last.
func (s *Scanner) begin() {
	s.start = s.pos
	s.text = s.pos
	s.rescans = 0
	s.cur, s.depth = -1, 0
	s.st.nodes = s.st.nodes[:0]
	s.st.attrs = s.st.attrs[:0]
	s.st.binds = s.st.binds[:s.keep]
	s.st.arena = s.st.arena[:0]
	s.st.Raw = nil
}

// fill reads more bytes, moving what is unfinished to the front first.
func (s *Scanner) fill() error {
	if s.start > 0 {
		n := copy(s.buf, s.buf[s.start:])
		s.buf = s.buf[:n]
		s.pos -= s.start
		s.text -= s.start
		s.start = 0
	}
	s.fit()
	for empty := 0; empty < 100; empty++ {
		n, err := s.r.Read(s.buf[len(s.buf):cap(s.buf)])
		fresh := s.buf[len(s.buf) : len(s.buf)+n]
		s.buf = s.buf[:len(s.buf)+n]
		switch {
		case n > 0:
			// An unfinished tag can only be finished by a '>'; without one there
			// is no point in looking at the tag again.
			if s.pos < len(s.buf)-n && s.buf[s.pos] == '<' && !s.inCDATA && bytes.IndexByte(fresh, '>') < 0 {
				if len(s.buf)-s.start > s.lim.Bytes {
					return tooMuch("an element of more than %d bytes", s.lim.Bytes)
				}
				if len(s.buf) == cap(s.buf) {
					return s.fill()
				}
				empty = -1
				continue
			}
			return nil
		case errors.Is(err, io.EOF):
			if len(s.buf) > s.start || !s.opened {
				return io.ErrUnexpectedEOF
			}
			return io.EOF
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}

// A desk is what a stream works with that has something to say.
type desk struct {
	buf   [bufferSize]byte
	nodes []node // for the next stanza
	attrs []attr
}

// desks are not with streams that have nothing to say: most have not, most of the time.
var desks = sync.Pool{New: func() any { return new(desk) }}

// fit has room in the buffer for what is read.
func (s *Scanner) fit() {
	switch size := cap(s.buf); {
	case size == 0, len(s.buf) == 0 && size > bufferSize:
		s.sit()
	case len(s.buf) == size:
		grown := make([]byte, len(s.buf), 2*size)
		copy(grown, s.buf)
		s.giveBack()
		s.buf = grown
	}
}

// sit takes a desk.
func (s *Scanner) sit() {
	s.desk = desks.Get().(*desk)
	if s.buf = s.desk.buf[:0]; s.st.nodes == nil {
		s.st.nodes, s.st.attrs = s.desk.nodes, s.desk.attrs
	}
	s.desk.nodes, s.desk.attrs = nil, nil
}

// giveBack lets another stream have the desk.
func (s *Scanner) giveBack() {
	if s.desk != nil {
		desks.Put(s.desk)
	}
	s.buf, s.desk = nil, nil
}

// Empty reports whether all that was read from the stream has been returned.
func (s *Scanner) Empty() bool { return s.pos == len(s.buf) }

const (
	restNodes = 256 // which are kept for the next stanza
	restAttrs = 256
	restBinds = 32
)

// Rest gives back the memory of a stream that has nothing to say. It is for an Empty one;
// the stanza returned last is not valid any more.
func (s *Scanner) Rest() {
	if s.desk != nil && cap(s.st.nodes) <= restNodes && cap(s.st.attrs) <= restAttrs {
		s.desk.nodes, s.desk.attrs = s.st.nodes[:0], s.st.attrs[:0]
	}
	s.giveBack()
	s.start, s.pos, s.text = 0, 0, 0
	s.st.Raw, s.st.arena, s.st.nodes, s.st.attrs = nil, nil, nil, nil
	if cap(s.st.binds) > s.keep+restBinds {
		s.st.binds = slices.Clone(s.st.binds[:s.keep])
	}
}

// advance goes on from s.pos until the item is complete (true) or the bytes at
// hand are used up.
func (s *Scanner) advance() (bool, error) {
	for s.pos < len(s.buf) {
		switch {
		case s.cur >= 0:
			if err := s.content(); err != nil {
				return false, err
			}
			if s.cur < 0 {
				return s.finish(KindElement), nil
			}
		case isSpace(s.buf[s.pos]):
			if !s.opened {
				return false, malformed("white space before the stream header")
			}
			for s.pos < len(s.buf) && isSpace(s.buf[s.pos]) {
				s.pos++
			}
			return s.finish(KindSpace), nil
		case s.buf[s.pos] != '<':
			return false, malformed("text outside any element")
		case !s.opened:
			return s.open()
		default:
			if err := s.tag(); err != nil {
				return false, err
			}
			if s.closed {
				return s.finish(KindClose), nil
			}
			if s.cur < 0 {
				return s.finish(KindElement), nil
			}
		}
	}
	return false, nil
}

func (s *Scanner) finish(k Kind) bool {
	s.st.Kind = k
	s.st.Raw = s.buf[s.start:s.pos:s.pos]
	return true
}

// content scans character data up to and including the next tag.
func (s *Scanner) content() error {
	b, i := s.buf, s.pos
	if s.inCDATA {
		return s.cdata()
	}
	for {
		if i = skipPlain(b, i, false); i == len(b) {
			s.pos = i
			return nil
		}
		switch textClass[b[i]] {
		case markup:
			s.pos = i
			return s.tag()
		case amp:
			_, n, err := reference(b, i)
			if err != nil {
				s.pos = i
				return err
			}
			i += n
		case gt:
			if i-s.text >= 2 && b[i-1] == ']' && b[i-2] == ']' {
				return malformed("the characters ]]> in text")
			}
			i++
		case nonASCII:
			var err error
			if i, err = chars(b, i); err != nil {
				s.pos = i
				return err
			}
		default:
			return malformed("the control character U+%04X", b[i])
		}
	}
}

// cdata scans the inside of a CDATA section.
func (s *Scanner) cdata() error {
	b := s.buf
	for i := s.pos; i < len(b); {
		switch c := b[i]; {
		case c == '>' && i-s.text >= 2 && b[i-1] == ']' && b[i-2] == ']':
			s.inCDATA = false
			s.pos = i + 1
			s.text = s.pos
			return nil
		case textClass[c] == control:
			return malformed("the control character U+%04X", c)
		case c >= 0x80:
			_, n, err := char(b, i)
			if err != nil {
				s.pos = i
				return err
			}
			i += n
		default:
			i++
		}
		s.pos = i
	}
	return nil
}

// tag handles the markup at s.pos: a start tag, an end tag or CDATA.
func (s *Scanner) tag() error {
	b, i := s.buf, s.pos
	if i+1 == len(b) {
		return errMore
	}
	var err error
	switch b[i+1] {
	case '/':
		err = s.endTag()
	case '!':
		err = s.bang()
	case '?':
		err = restricted("a processing instruction")
	default:
		var next int
		var empty bool
		next, empty, err = s.startTag(i)
		if err == nil {
			s.pos = next
			s.text = next
			if empty {
				s.leave(next, next)
			}
		}
	}
	if err == errMore {
		// Attribute values may hold '>', so that a tag which arrives in crumbs
		// could be looked at again and again; that work is bounded.
		if s.rescans += len(b) - i; s.rescans > 64*s.lim.Bytes {
			return tooMuch("a tag in too many pieces")
		}
	}
	return err
}

func (s *Scanner) bang() error {
	rest := s.buf[s.pos:]
	n := min(len(rest), len(cdataStart))
	if string(rest[:n]) == cdataStart[:n] {
		if n < len(cdataStart) {
			return errMore
		}
		if s.cur < 0 {
			return malformed("text outside any element")
		}
		s.pos += n
		s.text = s.pos
		s.inCDATA = true
		return nil
	}
	if len(rest) < 3 {
		return errMore
	}
	if rest[2] == '-' {
		return restricted("a comment")
	}
	return restricted("a document type declaration")
}

func (s *Scanner) endTag() error {
	b := s.buf
	i, err := ncName(b, s.pos+2)
	if err == nil && b[i] == ':' {
		i, err = ncName(b, i+1)
	}
	if err != nil {
		return err
	}
	name := b[s.pos+2 : i]
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	if i == len(b) {
		return errMore
	}
	if b[i] != '>' {
		return malformed("%q in an end tag", b[i])
	}
	if s.cur < 0 {
		if string(name) != "stream:stream" {
			return malformed("an end tag that closes nothing")
		}
		s.closed = true
		s.pos = i + 1
		return nil
	}
	n := &s.st.nodes[s.cur]
	if open := b[s.start+int(n.name.Start) : s.start+int(n.name.End)]; !bytes.Equal(open, name) {
		return malformed("an end tag that does not belong to the element it stands in")
	}
	inner := s.pos
	s.pos = i + 1
	s.text = s.pos
	s.leave(inner, s.pos)
	return nil
}

// leave closes the innermost element, whose content ends at inner and whose tag
// ends at end.
func (s *Scanner) leave(inner, end int) {
	n := &s.st.nodes[s.cur]
	n.inner.End = int32(inner - s.start)
	n.span.End = int32(end - s.start)
	n.next = int32(len(s.st.nodes))
	s.cur = n.parent
	s.depth--
}

// startTag scans the start tag at i and enters its element; where the tag is
// unfinished or wrong, nothing of it stays.
func (s *Scanner) startTag(i int) (next int, empty bool, err error) {
	st := &s.st
	nattrs, nbinds, narena := len(st.attrs), len(st.binds), len(st.arena)
	if next, empty, err = s.enter(i); err != nil {
		st.attrs = st.attrs[:nattrs]
		st.binds = st.binds[:nbinds]
		st.arena = st.arena[:narena]
	}
	return next, empty, err
}

func (s *Scanner) enter(i int) (next int, empty bool, err error) {
	b, base, st := s.buf, s.start, &s.st
	span := func(from, to int) Span { return Span{int32(from - base), int32(to - base)} }
	outer := s.scope
	if s.cur >= 0 {
		outer = st.nodes[s.cur].scope
	}
	n := node{parent: s.cur, attr0: int32(len(st.attrs)), scope: outer}
	n.span.Start = int32(i - base)
	from := i + 1
	if i, err = ncName(b, from); err != nil {
		return 0, false, err
	}
	prefix := Span{}
	n.local = span(from, i)
	if b[i] == ':' {
		prefix = n.local
		local := i + 1
		if i, err = ncName(b, local); err != nil {
			return 0, false, err
		}
		n.local = span(local, i)
	}
	n.name = span(from, i)
	if b[i] == ':' {
		return 0, false, malformed("a name with two colons")
	}

	for {
		spaces := i
		for i < len(b) && isSpace(b[i]) {
			i++
		}
		if i == len(b) {
			return 0, false, errMore
		}
		if b[i] == '>' {
			i++
			break
		}
		if b[i] == '/' {
			if i+1 == len(b) {
				return 0, false, errMore
			}
			if b[i+1] != '>' {
				return 0, false, malformed("a slash inside a tag")
			}
			i += 2
			empty = true
			break
		}
		if spaces == i {
			return 0, false, malformed("%q where white space or the end of a tag was expected", b[i])
		}
		if i, err = s.attribute(i, &n); err != nil {
			return 0, false, err
		}
		if len(st.attrs)-int(n.attr0) > s.lim.Attrs {
			return 0, false, tooMuch("more than %d attributes on one element", s.lim.Attrs)
		}
	}
	n.attrN = int32(len(st.attrs))
	if s.opened {
		if s.depth++; s.depth > s.lim.Depth {
			return 0, false, tooMuch("elements nested more than %d deep", s.lim.Depth)
		}
		if len(st.nodes) >= s.lim.Elements {
			return 0, false, tooMuch("more than %d elements in one stanza", s.lim.Elements)
		}
	}
	if n.ns, err = s.resolve(n.scope, prefix); err != nil {
		return 0, false, err
	}
	if err = s.attributes(&n); err != nil {
		return 0, false, err
	}
	n.inner = span(i, i)
	n.span.End = n.inner.End
	st.nodes = append(st.nodes, n)
	s.cur = int32(len(st.nodes) - 1)
	st.nodes[s.cur].next = s.cur + 1
	return i, empty, nil
}

// attribute scans one attribute at i; a namespace declaration enters n's scope.
func (s *Scanner) attribute(i int, n *node) (int, error) {
	b, base, st := s.buf, s.start, &s.st
	span := func(from, to int) Span { return Span{int32(from - base), int32(to - base)} }
	a := attr{colon: -1, ns: -1}
	from := i
	i, err := ncName(b, i)
	if err != nil {
		return 0, err
	}
	if b[i] == ':' {
		a.colon = int32(i - from)
		if i, err = ncName(b, i+1); err != nil {
			return 0, err
		}
	}
	a.name = span(from, i)
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	if i < len(b) && b[i] != '=' {
		return 0, malformed("an attribute without a value")
	}
	i++
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	if i >= len(b) {
		return 0, errMore
	}
	q := b[i]
	if q != '"' && q != '\'' {
		return 0, malformed("an attribute value without quotes")
	}
	i++
	value, escaped := i, false
scan:
	for {
		if i = skipPlain(b, i, true); i == len(b) {
			return 0, errMore
		}
		switch attrClass[b[i]] {
		case quote:
			if b[i] == q {
				break scan
			}
			i++
		case markup:
			return 0, malformed("< inside an attribute value")
		case amp:
			_, k, err := reference(b, i)
			if err != nil {
				return 0, err
			}
			i += k
			escaped = true
		case nonASCII:
			var err error
			if i, err = chars(b, i); err != nil {
				return 0, err
			}
		default:
			return 0, malformed("the control character U+%04X", b[i])
		}
	}
	a.value = span(value, i)
	st.attrs = append(st.attrs, a)

	name := b[from : int(a.name.End)+base]
	switch {
	case string(name) == "xmlns":
		return i + 1, s.bind(n, Span{}, a.value, escaped)
	case a.colon == 5 && string(name[:6]) == "xmlns:":
		return i + 1, s.bind(n, Span{a.name.Start + 6, a.name.End}, a.value, escaped)
	}
	return i + 1, nil
}

// bind enters a namespace declaration into n's scope.
func (s *Scanner) bind(n *node, prefix, value Span, escaped bool) error {
	st := &s.st
	raw := s.buf[s.start:]
	nb := binding{prefix: prefix, uri: value, outer: n.scope}
	uri := value.of(raw)
	if escaped {
		at := int32(len(st.arena))
		st.arena = appendText(st.arena, uri)
		nb.uri, nb.uriSrc = Span{at, int32(len(st.arena))}, inArena
		uri = nb.uri.of(st.arena)
	}
	p := prefix.of(raw)
	const nsXMLNS = "http://www.w3.org/2000/xmlns/"
	switch {
	case string(p) == "xmlns", string(uri) == nsXMLNS:
		return malformed("a declaration of the reserved prefix xmlns")
	case (string(p) == "xml") != (string(uri) == nsXML):
		return malformed("a wrong declaration of the reserved prefix xml")
	case bytes.IndexByte(value.of(raw), '\n') >= 0, bytes.IndexByte(value.of(raw), '\t') >= 0, bytes.IndexByte(value.of(raw), '\r') >= 0: // would be normalised to spaces, and is no URI
		return malformed("white space in a namespace name")
	case len(p) > 0 && len(uri) == 0:
		return malformed("a prefix bound to nothing")
	}
	if nb.outer >= 0 {
		nb.depth = st.binds[nb.outer].depth + 1
	}
	if int(nb.depth) >= s.lim.Bindings {
		return tooMuch("more than %d namespace declarations in force", s.lim.Bindings)
	}
	st.binds = append(st.binds, nb)
	n.scope = int32(len(st.binds) - 1)
	return nil
}

// resolve finds the namespace binding of a prefix (empty: the default namespace).
func (s *Scanner) resolve(scope int32, prefix Span) (int32, error) {
	raw := s.buf[s.start:]
	p := prefix.of(raw)
	for i := scope; i >= 0; {
		nb := &s.st.binds[i]
		have := raw
		if nb.prefixSrc == inHeader {
			have = s.st.header
		}
		if bytes.Equal(nb.prefix.of(have), p) {
			return i, nil
		}
		i = nb.outer
	}
	switch {
	case len(p) == 0:
		return -1, nil
	case string(p) == "xml":
		return s.builtinXML(), nil
	case string(p) == "xmlns":
		return 0, malformed("an element with the reserved prefix xmlns")
	}
	return 0, malformed("an undeclared prefix")
}

func (s *Scanner) builtinXML() int32 {
	s.st.binds = append(s.st.binds, binding{uriSrc: builtin, outer: -1})
	return int32(len(s.st.binds) - 1)
}

// attributes resolves prefixes of attributes and refuses duplicates.
func (s *Scanner) attributes(n *node) error {
	st := &s.st
	raw := s.buf[s.start:]
	attrs := st.attrs[n.attr0:n.attrN]
	prefixed := false
	for i := range attrs {
		a := &attrs[i]
		if a.colon >= 0 {
			p := Span{a.name.Start, a.name.Start + a.colon}
			if string(p.of(raw)) == "xmlns" {
				continue
			}
			ns, err := s.resolve(n.scope, p)
			if err != nil {
				return err
			}
			a.ns = ns
			prefixed = true
		}
	}
	for i := range attrs {
		name := attrs[i].name.of(raw)
		for j := range i {
			if other := attrs[j].name.of(raw); len(other) == len(name) && bytes.Equal(other, name) {
				return malformed("an attribute twice")
			}
		}
	}
	if !prefixed {
		return nil
	}
	uri := func(bind int32) []byte { // st.Raw is not set yet
		nb := &st.binds[bind]
		switch nb.uriSrc {
		case inRaw:
			return nb.uri.of(raw)
		case builtin:
			return []byte(nsXML)
		}
		return st.bytes(nb.uri, nb.uriSrc)
	}
	for i := range attrs {
		a := &attrs[i]
		for j := range i {
			o := &attrs[j]
			if a.ns < 0 || o.ns < 0 {
				continue
			}
			al, ol := a.name.of(raw)[a.colon+1:], o.name.of(raw)[o.colon+1:]
			if bytes.Equal(al, ol) && bytes.Equal(uri(a.ns), uri(o.ns)) {
				return malformed("an attribute twice")
			}
		}
	}
	return nil
}

// Unread makes the next call of Next return the same element once more.
func (s *Scanner) Unread() { s.pos = s.start }
