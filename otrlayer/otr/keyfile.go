package otr

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// libotr's key file is one S-expression of libgcrypt's (its manual, "S-expressions"):
//
//	(privkeys (account (name "..") (protocol prpl-jabber) (private-key (dsa (p #..#) (q #..#) (g #..#) (y #..#) (x #..#)))))

// An sexp is an atom or a list.
type sexp struct {
	atom string
	list []sexp
	leaf bool
}

const (
	maxKeyFile  = 1 << 20
	maxSexpDeep = 8
)

var errSexp = errors.New("malformed S-expression")

// parseSexp reads exactly one S-expression.
func parseSexp(b string) (sexp, error) {
	if len(b) > maxKeyFile {
		return sexp{}, errSexp
	}
	x, rest, err := readSexp(b, 0)
	if err == nil && strings.Trim(rest, " \t\r\n\x00") != "" {
		err = errSexp
	}
	return x, err
}

func readSexp(b string, deep int) (x sexp, rest string, err error) {
	b = strings.TrimLeft(b, " \t\r\n")
	if b == "" || deep > maxSexpDeep {
		return x, "", errSexp
	}
	if b[0] != '(' {
		return readAtom(b)
	}
	b = b[1:]
	for {
		b = strings.TrimLeft(b, " \t\r\n")
		if b == "" {
			return x, "", errSexp
		}
		if b[0] == ')' {
			return x, b[1:], nil
		}
		var item sexp
		if item, b, err = readSexp(b, deep+1); err != nil {
			return x, "", err
		}
		x.list = append(x.list, item)
	}
}

func readAtom(b string) (x sexp, rest string, err error) {
	x.leaf = true
	switch c := b[0]; {
	case c == '#' || c == '|': // hex or base64
		end := strings.IndexByte(b[1:], c)
		if end < 0 {
			return x, "", errSexp
		}
		clean := strings.Map(func(r rune) rune {
			if strings.ContainsRune(" \t\r\n", r) {
				return -1
			}
			return r
		}, b[1:1+end])
		var raw []byte
		if c == '#' {
			if len(clean)%2 != 0 { // a number without its leading zero, as otr3 writes it
				clean = "0" + clean
			}
			raw, err = hex.DecodeString(clean)
		} else {
			raw, err = base64.StdEncoding.DecodeString(clean)
		}
		if err != nil {
			return x, "", errSexp
		}
		x.atom = string(raw)
		return x, b[end+2:], nil
	case c == '"':
		for i := 1; i < len(b); i++ {
			switch b[i] {
			case '\\':
				i++
			case '"':
				if x.atom, err = unquote(b[1:i]); err != nil {
					return x, "", errSexp
				}
				return x, b[i+1:], nil
			}
		}
		return x, "", errSexp
	case c >= '0' && c <= '9': // 3:abc
		n, after, ok := strings.Cut(b, ":")
		k, err := strconv.Atoi(n)
		if !ok || err != nil || k < 0 || k > len(after) {
			return x, "", errSexp
		}
		x.atom = after[:k]
		return x, after[k:], nil
	}
	end := strings.IndexAny(b, " \t\r\n()#|\"")
	if end <= 0 {
		return x, "", errSexp
	}
	x.atom = b[:end]
	return x, b[end:], nil
}

// unquote resolves C's escapes, which S-expressions share, byte by byte: what stands
// between them need not be UTF-8.
func unquote(s string) (string, error) {
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		if i++; i == len(s) {
			return "", errSexp
		}
		switch c := s[i]; {
		case strings.IndexByte(`"'\`, c) >= 0:
			b = append(b, c)
		case strings.IndexByte("bfnrtv", c) >= 0:
			b = append(b, "\b\f\n\r\t\v"[strings.IndexByte("bfnrtv", c)])
		case c == '\n' || c == '\r': // a line that goes on
			if i+1 < len(s) && s[i+1] == '\r'+'\n'-c {
				i++
			}
		case c == 'x' && i+2 < len(s), c >= '0' && c <= '7' && i+2 < len(s):
			digits, base := s[i:i+3], 8
			if c == 'x' {
				digits, base = s[i+1:i+3], 16
			}
			n, err := strconv.ParseUint(digits, base, 8)
			if err != nil {
				return "", errSexp
			}
			b = append(b, byte(n))
			i += 2
		default:
			return "", errSexp
		}
	}
	return string(b), nil
}

// named returns the rest of a list that begins with a word.
func (x sexp) named(word string) ([]sexp, bool) {
	if x.leaf || len(x.list) == 0 || !x.list[0].leaf || x.list[0].atom != word {
		return nil, false
	}
	return x.list[1:], true
}

// find is the first item of a list that begins with a word.
func find(list []sexp, word string) ([]sexp, bool) {
	for _, x := range list {
		if rest, ok := x.named(word); ok {
			return rest, true
		}
	}
	return nil, false
}

func text(list []sexp, word string) string {
	rest, ok := find(list, word)
	if !ok || len(rest) != 1 || !rest[0].leaf {
		return ""
	}
	return rest[0].atom
}

// An AccountKey is one account of a key file.
type AccountKey struct {
	Name, Protocol string
	Key            *PrivateKey // nil where it is damaged
}

// accounts are the fields of each account of a file of libotr's format.
func accounts(file []byte) (list [][]sexp, err error) {
	root, err := parseSexp(string(file))
	if err != nil {
		return nil, err
	}
	items, ok := root.named("privkeys")
	if !ok {
		return nil, errSexp
	}
	for _, a := range items {
		fields, ok := a.named("account")
		if !ok {
			return nil, errSexp
		}
		list = append(list, fields)
	}
	return list, nil
}

// ParseKeys reads all accounts of a file of libotr's format.
func ParseKeys(file []byte) (keys []AccountKey, err error) {
	list, err := accounts(file)
	for _, fields := range list {
		k := AccountKey{Name: text(fields, "name"), Protocol: text(fields, "protocol")}
		k.Key, _ = privateKey(fields)
		keys = append(keys, k)
	}
	return keys, err
}

// FindKey returns the key of the first account in a file of libotr's format that
// mine says yes to; nil when the file is sound and has none such. Keys of others
// are not looked into.
func FindKey(file []byte, mine func(name, protocol string) bool) (*PrivateKey, error) {
	list, err := accounts(file)
	for _, fields := range list {
		if mine(text(fields, "name"), text(fields, "protocol")) {
			return privateKey(fields)
		}
	}
	return nil, err
}

// privateKey is the key of one account of a file.
func privateKey(fields []sexp) (*PrivateKey, error) {
	key, ok := find(fields, "private-key")
	if !ok {
		return nil, errSexp
	}
	numbers, ok := find(key, "dsa")
	if !ok {
		return nil, errSexp
	}
	var n [5][]byte
	for i, word := range keyWords {
		n[i] = []byte(text(numbers, word))
		if len(n[i]) == 0 || len(n[i]) > 512 {
			return nil, errSexp
		}
	}
	number := func(i int) *big.Int { return new(big.Int).SetBytes(n[i]) }
	k, err := newPrivateKey(number(0), number(1), number(2), number(3), n[4])
	if err != nil {
		return nil, errSexp
	}
	return k, nil
}

var keyWords = [5]string{"p", "q", "g", "y", "x"}

// AppendKey returns a file of libotr's format with one account's key added. What
// is in the file stays as it is; an empty one is begun.
func AppendKey(file []byte, name, protocol string, k *PrivateKey) ([]byte, error) {
	out := []byte("(privkeys\n")
	if trimmed := bytes.TrimRight(file, " \t\r\n\x00"); len(trimmed) > 0 {
		if _, err := FindKey(file, func(string, string) bool { return false }); err != nil {
			return nil, err
		}
		out = bytes.Clone(bytes.TrimSuffix(trimmed, []byte(")")))
	}
	out = fmt.Appendf(out, " (account\n(name %s)\n(protocol %s)\n(private-key \n (dsa \n", quote(name), protocol)
	for i, n := range [5][]byte{k.public.p.Bytes(), k.public.q.Bytes(), k.public.g.Bytes(), k.public.y.Bytes(), bytes.TrimLeft(k.x, "\x00")} {
		if n[0] >= 0x80 { // libgcrypt reads these numbers as signed
			n = append([]byte{0}, n...)
		}
		out = fmt.Appendf(out, "  (%s #%X#)\n", keyWords[i], n)
	}
	return append(out, "  )\n )\n )\n)\n"...), nil
}

// quote is a string as libgcrypt reads it.
func quote(s string) string {
	b := []byte{'"'}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = fmt.Appendf(b, "\\x%02x", c)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}
