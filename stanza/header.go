package stanza

import (
	"bytes"
)

// Namespaces of RFC 6120.
const (
	NSStream  = "http://etherx.jabber.org/streams"
	NSClient  = "jabber:client"
	NSTLS     = "urn:ietf:params:xml:ns:xmpp-tls"
	NSSASL    = "urn:ietf:params:xml:ns:xmpp-sasl"
	NSBind    = "urn:ietf:params:xml:ns:xmpp-bind"
	NSStanzas = "urn:ietf:params:xml:ns:xmpp-stanzas"
	NSStreams = "urn:ietf:params:xml:ns:xmpp-streams"
)

// open scans an optional XML declaration and the stream header (RFC 6120 section 4.7).
func (s *Scanner) open() (bool, error) {
	b := s.buf[s.pos:]
	const decl = "<?xml"
	if n := min(len(b), len(decl)); string(b[:n]) == decl[:n] && len(b) > 1 {
		end := bytes.Index(b, []byte("?>"))
		if end < 0 {
			if len(b) > 200 {
				return false, malformed("an endless XML declaration")
			}
			return false, errMore
		}
		if err := declaration(b[len(decl):end]); err != nil {
			return false, err
		}
		i := end + 2
		for i < len(b) && isSpace(b[i]) {
			i++
		}
		if i == len(b) {
			return false, errMore
		}
		if b[i] != '<' {
			return false, malformed("text before the stream header")
		}
		return s.openTag(s.pos + i)
	}
	if len(b) == 1 {
		return false, errMore
	}
	return s.openTag(s.pos)
}

func (s *Scanner) openTag(at int) (bool, error) {
	if at+1 == len(s.buf) {
		return false, errMore
	}
	next, empty, err := s.startTag(at)
	if err == errMore {
		if s.rescans += len(s.buf) - at; s.rescans > 64*s.lim.Bytes {
			return false, tooMuch("a stream header in too many pieces")
		}
	}
	if err != nil {
		return false, err
	}
	s.pos = next
	s.finish(KindHeader)
	s.cur, s.depth = -1, 0
	root := s.st.Root()
	switch {
	case empty:
		return false, malformed("a stream that ends in its own header")
	case string(root.Local()) != "stream" || string(root.NS()) != NSStream:
		return false, &SyntaxError{Condition: "invalid-namespace", Reason: "the header is not that of an XMPP stream"}
	case string(root.Name()) != "stream:stream":
		return false, &SyntaxError{Condition: "bad-namespace-prefix", Reason: "the stream element must have the prefix stream"}
	case string(root.defaultNS()) != NSClient:
		return false, &SyntaxError{Condition: "invalid-namespace", Reason: "the stream's content namespace must be jabber:client"}
	}
	// From here on the header's bindings are in force for every stanza, whose
	// bytes do not hold them: point them at a copy.
	s.opened = true
	s.st.header = bytes.Clone(s.st.Raw)
	s.keep = len(s.st.binds)
	s.scope = s.st.nodes[0].scope
	for i := range s.st.binds {
		nb := &s.st.binds[i]
		nb.prefixSrc = inHeader
		switch nb.uriSrc {
		case inRaw:
			nb.uriSrc = inHeader
		case inArena: // the arena is emptied for every stanza
			at := int32(len(s.st.header))
			s.st.header = append(s.st.header, nb.uri.of(s.st.arena)...)
			nb.uri, nb.uriSrc = Span{at, int32(len(s.st.header))}, inHeader
		}
	}
	for name, value := range root.AttrNames() {
		if p, ok := bytes.CutPrefix([]byte(name), []byte("xmlns:")); ok && string(p) != "stream" && string(p) != "xml" {
			s.declared = append(s.declared, ' ')
			s.declared = append(s.declared, name...)
			q := byte('\'')
			if bytes.IndexByte(value, q) >= 0 {
				q = '"'
			}
			s.declared = append(append(append(s.declared, '=', q), value...), q)
		}
	}
	return true, nil
}

func (e Element) defaultNS() []byte {
	for i := e.n().scope; i >= 0; i = e.st.binds[i].outer {
		if b := &e.st.binds[i]; b.prefix.Len() == 0 {
			return e.st.uri(i)
		}
	}
	return nil
}

// Declared is the header's own declarations of namespace prefixes, as written,
// each with a space before it. A stanza's meaning depends on them, so they must
// stand in the header of every stream the stanza is passed to.
func (s *Scanner) Declared() []byte { return s.declared }

// declaration checks the inside of an XML declaration (XML 1.0 section 2.8):
// version 1.0 and, when named, the encoding UTF-8.
func declaration(b []byte) error {
	fields := map[string]string{}
	order := []string{}
	for len(bytes.TrimLeft(b, " \t\r\n")) > 0 {
		if !isSpace(b[0]) {
			return malformed("a malformed XML declaration")
		}
		b = bytes.TrimLeft(b, " \t\r\n")
		name, rest, ok := bytes.Cut(b, []byte("="))
		rest = bytes.TrimLeft(rest, " \t\r\n")
		if !ok || len(rest) < 2 || rest[0] != '"' && rest[0] != '\'' {
			return malformed("a malformed XML declaration")
		}
		end := bytes.IndexByte(rest[1:], rest[0])
		if end < 0 {
			return malformed("a malformed XML declaration")
		}
		key := string(bytes.TrimRight(name, " \t\r\n"))
		if _, twice := fields[key]; twice {
			return malformed("a malformed XML declaration")
		}
		fields[key] = string(rest[1 : 1+end])
		order = append(order, key)
		b = rest[end+2:]
	}
	rank := map[string]int{"version": 0, "encoding": 1, "standalone": 2}
	last := -1
	for _, k := range order {
		r, known := rank[k]
		if !known || r <= last {
			return malformed("a malformed XML declaration")
		}
		last = r
	}
	if fields["version"] != "1.0" {
		return &SyntaxError{Condition: "unsupported-version", Reason: "an XML declaration that is not of version 1.0"}
	}
	if enc, ok := fields["encoding"]; ok && !bytes.EqualFold([]byte(enc), []byte("utf-8")) {
		return &SyntaxError{Condition: "unsupported-encoding", Reason: "an encoding other than UTF-8"}
	}
	if sa, ok := fields["standalone"]; ok && sa != "yes" && sa != "no" {
		return malformed("a malformed XML declaration")
	}
	return nil
}
