package sasl

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// A client of an enrolled account proves here that it knows the password, bound to its own
// connection, and does not hand it over. From its proof our own ClientKey is found (RFC 5802
// section 3: the proof is ClientKey XOR ClientSignature), which opens the server's
// (ownkeys.go), and with that the login to the server is made, bound to ours.

// A Secret is what an account can prove who it is with.
type Secret interface {
	// prover is the client's side of a SCRAM exchange; nil where the secret has no part in
	// the mechanism. A nil binding is none; unseen says that the server seems to have none.
	prover(m *Mechanism, b *scram.ChannelBinding, unseen bool) (prover, *LoginError)
	// Plain is the name and password themselves, where there are any.
	Plain() (Credentials, bool)
}

// A prover takes the server's messages by turns with the client's own (the first answers
// nothing), and is valid once the server has proved itself too.
type prover interface {
	Step(challenge string) (string, error)
	Valid() bool
}

// A Shown is a secret of which only the ClientKey is known, of one mechanism.
type Shown struct {
	User      string
	Keys      *Enrolment
	ClientKey []byte
}

// Plain is nothing: the password is not known.
func (s Shown) Plain() (Credentials, bool) { return Credentials{}, false }

func (s Shown) prover(m *Mechanism, b *scram.ChannelBinding, unseen bool) (prover, *LoginError) {
	if m.Name != s.Keys.Mechanism {
		return nil, nil
	}
	k := &keyed{Shown: s, m: m, gs2: "n,,", nonce: rand.Text()}
	switch {
	case b != nil:
		k.gs2, k.binding = "p="+string(b.Type)+",,", b.Data
	case unseen:
		k.gs2 = "y,,"
	}
	return k, nil
}

// keyed is the client's side of SCRAM (RFC 5802) with a ClientKey instead of a password.
type keyed struct {
	Shown
	m         *Mechanism
	gs2       string
	binding   []byte
	nonce     string
	bare      string
	signature []byte // the server's, to come
	step      int
	valid     bool
}

// errStale says that the server has other salts now, and with them other keys.
var errStale = errors.New("the keys are of another password")

var errSCRAM = errors.New("not a message of SCRAM")

func (k *keyed) Valid() bool { return k.valid }

func (k *keyed) Step(challenge string) (string, error) {
	k.step++
	switch k.step {
	case 1:
		k.bare = "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(k.User) + ",r=" + k.nonce
		return k.gs2 + k.bare, nil
	case 2:
		return k.prove(challenge)
	case 3:
		v, ok := strings.CutPrefix(strings.Split(challenge, ",")[0], "v=")
		sent, err := base64.StdEncoding.DecodeString(v)
		k.valid = ok && err == nil && hmac.Equal(sent, k.signature)
		if k.valid {
			return "", nil
		}
	}
	return "", errSCRAM
}

func (k *keyed) prove(challenge string) (string, error) {
	f := strings.SplitN(challenge, ",", 4)
	if len(f) < 3 || !strings.HasPrefix(f[0], "r="+k.nonce) || len(f[0]) == len("r="+k.nonce) || !strings.HasPrefix(f[1], "s=") || !strings.HasPrefix(f[2], "i=") {
		return "", errSCRAM
	}
	salt, err := base64.StdEncoding.DecodeString(f[1][2:])
	n, err2 := strconv.Atoi(f[2][2:])
	if err != nil || err2 != nil {
		return "", errSCRAM
	}
	if string(salt) != string(k.Keys.Salt) || n != k.Keys.Iterations {
		return "", errStale
	}
	final := "c=" + base64.StdEncoding.EncodeToString(append([]byte(k.gs2), k.binding...)) + "," + f[0]
	auth := []byte(k.bare + "," + challenge + "," + final)
	k.signature = k.m.mac(k.Keys.ServerKey, auth)
	return final + ",p=" + base64.StdEncoding.EncodeToString(xor(k.ClientKey, k.m.mac(k.Keys.StoredKey, auth))), nil
}

func (m *Mechanism) mac(key, data []byte) []byte {
	h := hmac.New(m.new, key)
	h.Write(data)
	return h.Sum(nil)
}

// xor is of two of the same length.
func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	for i := range a {
		out[i] = a[i] ^ b[i]
	}
	return out
}

// MechanismOf is the mechanism of a name, with -PLUS or without; nil for none.
func MechanismOf(name string) *Mechanism {
	i := slices.IndexFunc(mechanisms, func(m *Mechanism) bool { return m.Name == strings.TrimSuffix(name, "-PLUS") })
	if i < 0 {
		return nil
	}
	return mechanisms[i]
}

// ClientKey is what an exchange that was checked has shown (RFC 5802 section 3); nil where
// the proof's length is wrong.
func ClientKey(m *Mechanism, stored []byte, first, challenge, final string) []byte {
	bare := strings.SplitN(first, ",", 3)[2]
	at := max(strings.LastIndex(final, ",p="), 0)
	sent, err := base64.StdEncoding.DecodeString(final[min(at+3, len(final)):])
	if err != nil || len(sent) != m.new().Size() {
		return nil
	}
	return xor(sent, m.mac(stored, []byte(bare+","+challenge+","+final[:at])))
}
