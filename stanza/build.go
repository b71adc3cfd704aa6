package stanza

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// AppendEscaped appends character data that is safe in text and in attribute
// values. Characters that XML 1.0 does not allow become U+FFFD, so that no text
// of a peer can end somebody's stream.
func AppendEscaped[T string | []byte](dst []byte, s T) []byte {
	for i := 0; i < len(s); {
		run := i
		i = skipUnescaped(s, i)
		if dst = append(dst, s[run:i]...); i == len(s) {
			break
		}
		c := s[i]
		if c < utf8.RuneSelf {
			i++
			switch {
			case c == '<':
				dst = append(dst, "&lt;"...)
			case c == '>':
				dst = append(dst, "&gt;"...)
			case c == '&':
				dst = append(dst, "&amp;"...)
			case c == '\'':
				dst = append(dst, "&apos;"...)
			case c == '"':
				dst = append(dst, "&quot;"...)
			case c == '\r':
				dst = append(dst, "&#xD;"...)
			case textClass[c] == control:
				dst = append(dst, "\uFFFD"...)
			}
			continue
		}
		run = i
		i = skipSafe(s, i)
		if dst = append(dst, s[run:i]...); i == run {
			n, _ := xmlChar(s, i)
			dst = utf8.AppendRune(dst, utf8.RuneError)
			i += n
		}
	}
	return dst
}

// skipSafe returns the end of the run of characters from i on that stand as they are.
func skipSafe[T string | []byte](s T, i int) int {
	for {
		i = skipUnescaped(s, i)
		if i == len(s) || s[i] < utf8.RuneSelf {
			return i
		}
		n, ok := xmlChar(s, i)
		if !ok {
			return i
		}
		i += n
	}
}

// xmlChar is how long the non-ASCII character at s[i] is, and whether XML allows it.
func xmlChar[T string | []byte](s T, i int) (n int, ok bool) {
	if s[i] >= 0xC2 && s[i] < 0xE0 && i+1 < len(s) && s[i+1]&0xC0 == 0x80 { // of two bytes
		return 2, true
	}
	var next [utf8.UTFMax]byte
	r, n := utf8.DecodeRune(next[:copy(next[:], s[i:])])
	return n, (r != utf8.RuneError || n > 1) && isChar(r)
}

// skipUnescaped returns the end of the run of ASCII characters from i on that stand as they
// are.
func skipUnescaped[T string | []byte](s T, i int) int {
	for i+4 <= len(s) && unescaped[s[i]] && unescaped[s[i+1]] && unescaped[s[i+2]] && unescaped[s[i+3]] {
		i += 4
	}
	for i < len(s) && unescaped[s[i]] {
		i++
	}
	return i
}

// unescaped are the characters that stand as they are.
var unescaped = func() (t [256]bool) {
	for c := range utf8.RuneSelf {
		t[c] = (c >= 0x20 || c == '\t' || c == '\n') && !strings.ContainsRune("<>&'\"", rune(c))
	}
	return t
}()

// AppendAttr appends one attribute with a space before it.
func AppendAttr[T string | []byte](dst []byte, name string, value T) []byte {
	dst = append(append(append(dst, ' '), name...), "='"...)
	return append(appendAttrValue(dst, value), '\'')
}

// appendAttrValue is AppendEscaped for attributes, in which literal tabs and line
// ends would be read as spaces.
func appendAttrValue[T string | []byte](dst []byte, value T) []byte {
	at := len(dst)
	dst = AppendEscaped(dst, value)
	if bytes.IndexByte(dst[at:], '\n') >= 0 || bytes.IndexByte(dst[at:], '\t') >= 0 {
		v := bytes.ReplaceAll(dst[at:], []byte("\n"), []byte("&#xA;"))
		dst = append(dst[:at], bytes.ReplaceAll(v, []byte("\t"), []byte("&#x9;"))...)
	}
	return dst
}

// appendOptional is AppendAttr for a value that may be absent.
func appendOptional(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return AppendAttr(dst, name, value)
}

// A Header is what a stream header says (RFC 6120 section 4.7).
type Header struct {
	To, From, ID, Lang string
	Declared           []byte // further namespace declarations, as Scanner.Declared gives them
}

// HeaderOf reads a header a Scanner has returned.
func HeaderOf(st *Stanza) Header {
	r := st.Root()
	return Header{To: r.Attr("to"), From: r.Attr("from"), ID: r.Attr("id"), Lang: r.Attr("xml:lang")}
}

// AppendTo appends the stream header.
func (h Header) AppendTo(dst []byte) []byte {
	dst = append(dst, "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='"+NSStream+"' version='1.0'"...)
	dst = append(dst, h.Declared...)
	dst = appendOptional(dst, "from", h.From)
	dst = appendOptional(dst, "to", h.To)
	dst = appendOptional(dst, "id", h.ID)
	dst = appendOptional(dst, "xml:lang", h.Lang)
	return append(dst, '>')
}

// StreamClose ends a stream.
const StreamClose = "</stream:stream>"

// AppendStreamError appends a stream error (RFC 6120 section 4.9) with a text
// for people, and the end of the stream.
func AppendStreamError(dst []byte, condition, text string) []byte {
	dst = append(append(append(dst, "<stream:error><"...), condition...), " xmlns='"+NSStreams+"'/>"...)
	if text != "" {
		dst = append(dst, "<text xmlns='"+NSStreams+"' xml:lang='en'>"...)
		dst = append(AppendEscaped(dst, text), "</text>"...)
	}
	return append(dst, "</stream:error>"+StreamClose...)
}

// An Error is a stanza error (RFC 6120 section 8.3).
type Error struct {
	Type      string // auth, cancel, continue, modify or wait
	Condition string
	Text      string
}

// AppendTo appends the <error/> element.
func (e Error) AppendTo(dst []byte) []byte {
	dst = AppendAttr(append(dst, "<error"...), "type", e.Type)
	dst = append(append(append(dst, "><"...), e.Condition...), " xmlns='"+NSStanzas+"'/>"...)
	if e.Text != "" {
		dst = append(dst, "<text xmlns='"+NSStanzas+"' xml:lang='en'>"...)
		dst = append(AppendEscaped(dst, e.Text), "</text>"...)
	}
	return append(dst, "</error>"...)
}

// AppendError appends the stanza <kind type='error'> that answers a stanza of
// that kind ("message", "iq" or "presence"). From is whom the refused stanza was
// for, to who sent it.
func AppendError(dst []byte, kind, from, to, id string, e Error) []byte {
	dst = append(append(dst, '<'), kind...)
	dst = appendOptional(dst, "from", from)
	dst = appendOptional(dst, "to", to)
	dst = appendOptional(dst, "id", id)
	dst = append(dst, " type='error'>"...)
	dst = e.AppendTo(dst)
	return append(append(append(dst, "</"...), kind...), '>')
}

// A Message is a message we write ourselves.
type Message struct {
	From, To, ID, Type string
	Body               string
	Bytes              []byte // the body, where it is no string
	Extra              []byte // markup behind the body
	Within             bool   // it stands in an element of another namespace (XEP-0297), and declares its own
}

// AppendTo appends the message.
func (m Message) AppendTo(dst []byte) []byte {
	dst = append(dst, "<message"...)
	if m.Within {
		dst = append(dst, " xmlns='"+NSClient+"'"...)
	}
	dst = appendOptional(dst, "from", m.From)
	dst = appendOptional(dst, "to", m.To)
	dst = appendOptional(dst, "id", m.ID)
	dst = appendOptional(dst, "type", m.Type)
	dst = append(dst, '>')
	if m.Body != "" {
		dst = append(AppendEscaped(append(dst, "<body>"...), m.Body), "</body>"...)
	}
	if m.Bytes != nil {
		dst = append(AppendEscaped(append(dst, "<body>"...), m.Bytes), "</body>"...)
	}
	dst = append(dst, m.Extra...)
	return append(dst, "</message>"...)
}
