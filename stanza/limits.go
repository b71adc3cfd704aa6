package stanza

import (
	"errors"
	"fmt"
	"strings"
)

// Limits bound what one element of a stream may cost us (RFC 6120 section 13.12).
// The zero value of a field means its default.
type Limits struct {
	Bytes    int // largest top-level element, in bytes; default 256 KiB
	Depth    int // deepest nesting, the top-level element being 1; default 64
	Attrs    int // most attributes on one element; default 64
	Bindings int // most namespace declarations in force at one place; default 128
	Elements int // most elements inside one top-level element; default 32768
}

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.Bytes, 256<<10)
	def(&l.Depth, 64)
	def(&l.Attrs, 64)
	def(&l.Bindings, 128)
	def(&l.Elements, 32768)
	return l
}

// A SyntaxError says why a stream was refused. Condition is the stream error
// condition of RFC 6120 section 4.9.3 to answer with.
type SyntaxError struct {
	Condition string
	Reason    string
	Quoted    string // the part of Reason that stood in the stream, and may be private
}

func (e *SyntaxError) Error() string { return e.Reason }

// Unquoted is Reason without what stood in the stream, for logs.
func (e *SyntaxError) Unquoted() string {
	if e.Quoted == "" {
		return e.Reason
	}
	return strings.ReplaceAll(e.Reason, e.Quoted, "...")
}

// quoting notes what part of an error stood in the stream.
func quoting(err error, quoted []byte) error {
	err.(*SyntaxError).Quoted = string(quoted)
	return err
}

func malformed(format string, args ...any) error {
	return &SyntaxError{Condition: "not-well-formed", Reason: fmt.Sprintf(format, args...)}
}

// restricted is for XML that is well-formed but forbidden in XMPP (RFC 6120 section 11.1).
func restricted(format string, args ...any) error {
	return &SyntaxError{Condition: "restricted-xml", Reason: fmt.Sprintf(format, args...)}
}

func tooMuch(format string, args ...any) error {
	return &SyntaxError{Condition: "policy-violation", Reason: fmt.Sprintf(format, args...)}
}

// errMore says that the bytes at hand end inside a token.
var errMore = errors.New("more bytes needed")
