package sasl

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// A client of an enrolled account proves the password here by keys of our own, which are made
// of it with a salt of our own (RFC 5802 section 3). By the server's keys the server could do
// so as well: at every login it learns the ClientKey, and with that it would be the account's
// person here. Our own ClientKey comes out of the client's proof, and nobody else has it; the
// server's, which the login there needs, is sealed with it.

// ownKeys are those of one mechanism.
type ownKeys struct {
	Salt       []byte `yaml:"salt"`
	Iterations int    `yaml:"iterations"`
	StoredKey  []byte `yaml:"stored_key"`
	ServerKey  []byte `yaml:"server_key"`
	Sealed     []byte `yaml:"sealed"` // the ClientKey for the server: a nonce, and AES-256-GCM
}

// ownIterations are as many as servers have that take care, and as clients do at each login.
const ownIterations = 10_000

// derived are the keys of a password: what verifies a proof, and what makes one.
func (m *Mechanism) derived(c Credentials, salt []byte, iterations int) (k scram.StoredCredentials, client []byte, ok bool) {
	cl, le := m.client(c)
	if le != nil {
		return k, nil, false
	}
	k, err := cl.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: iterations})
	if err != nil {
		return k, nil, false
	}
	// The library does not give the ClientKey; a proof of its own shows it.
	conv := cl.NewConversation()
	first, err := conv.Step("")
	at := strings.LastIndex(first, ",r=")
	if err != nil || at < 0 {
		return k, nil, false
	}
	challenge := "r=" + first[at+3:] + "x,s=" + base64.StdEncoding.EncodeToString(salt) + ",i=" + strconv.Itoa(iterations)
	final, err := conv.Step(challenge)
	if err != nil {
		return k, nil, false
	}
	client = ClientKey(m, k.StoredKey, first, challenge, final)
	return k, client, client != nil
}

// newOwnKeys makes them, and seals the server's ClientKey; nil where the password has none.
func newOwnKeys(m *Mechanism, c Credentials, server []byte) *ownKeys {
	own := &ownKeys{Salt: make([]byte, 16), Iterations: ownIterations}
	rand.Read(own.Salt)
	k, client, ok := m.derived(c, own.Salt, own.Iterations)
	if !ok {
		return nil
	}
	own.StoredKey, own.ServerKey = k.StoredKey, k.ServerKey
	aead, err := sealing(m, client)
	if err != nil {
		return nil
	}
	own.Sealed = make([]byte, aead.NonceSize())
	rand.Read(own.Sealed)
	own.Sealed = aead.Seal(own.Sealed, own.Sealed, server, own.StoredKey)
	return own
}

var errSealed = errors.New("the server's key cannot be opened with the client's proof")

// Open gives the server's ClientKey to who has ours.
func (o *ownKeys) Open(m *Mechanism, client []byte) ([]byte, error) {
	aead, err := sealing(m, client)
	if err != nil || len(o.Sealed) < aead.NonceSize() {
		return nil, errSealed
	}
	server, err := aead.Open(nil, o.Sealed[:aead.NonceSize()], o.Sealed[aead.NonceSize():], o.StoredKey)
	if err != nil || len(server) != m.new().Size() {
		return nil, errSealed
	}
	return server, nil
}

func sealing(m *Mechanism, client []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, client, nil, "otrproxy login.keys "+m.Name, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// sound reports whether they can be some.
func (o *ownKeys) sound(m *Mechanism) bool {
	return len(o.Salt) >= 8 && o.Iterations >= 1 && o.Iterations <= maxIterations && len(o.StoredKey) == m.new().Size() && len(o.ServerKey) == m.new().Size()
}
