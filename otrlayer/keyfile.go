package otrlayer

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
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

// unquote resolves C's escapes, which S-expressions share.
func unquote(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	return strconv.Unquote(`"` + strings.ReplaceAll(strings.ReplaceAll(s, "\n", `\n`), "\r", `\r`) + `"`)
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

// A dsaKey is the numbers of one private key.
type dsaKey struct{ p, q, g, y, x *big.Int }

// readKey finds an account's key in a file of libotr's format; nil when the file is
// sound and holds only keys of others.
func readKey(file []byte, account string) (*dsaKey, error) {
	root, err := parseSexp(string(file))
	if err != nil {
		return nil, err
	}
	accounts, ok := root.named("privkeys")
	if !ok {
		return nil, errSexp
	}
	for _, a := range accounts {
		fields, ok := a.named("account")
		if !ok {
			return nil, errSexp
		}
		if !ours(text(fields, "name"), text(fields, "protocol"), account) {
			continue
		}
		key, ok := find(fields, "private-key")
		if !ok {
			return nil, errSexp
		}
		numbers, ok := find(key, "dsa")
		if !ok {
			return nil, errSexp
		}
		k := &dsaKey{}
		for word, to := range map[string]**big.Int{"p": &k.p, "q": &k.q, "g": &k.g, "y": &k.y, "x": &k.x} {
			raw := text(numbers, word)
			if raw == "" || len(raw) > 512 {
				return nil, errSexp
			}
			*to = new(big.Int).SetBytes([]byte(raw))
		}
		if !k.sound() {
			return nil, errSexp
		}
		return k, nil
	}
	return nil, nil
}

// sound reports whether the numbers belong together: those of a damaged file do
// not, and would only fail, or leak, later.
func (k *dsaKey) sound() bool {
	one := big.NewInt(1)
	return k.p.BitLen() == 1024 && k.q.BitLen() == 160 && k.p.Bit(0) == 1 && k.q.Bit(0) == 1 &&
		k.g.Cmp(one) > 0 && k.g.Cmp(k.p) < 0 && k.x.Sign() > 0 && k.x.Cmp(k.q) < 0 &&
		new(big.Int).Exp(k.g, k.q, k.p).Cmp(one) == 0 && new(big.Int).Exp(k.g, k.x, k.p).Cmp(k.y) == 0
}
