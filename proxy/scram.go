package proxy

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
	"mellium.im/xmpp/jid"

	"otrproxy/otrlayer"
	"otrproxy/stanza"
)

// A client of an enrolled account proves here that it knows the password, bound to its own
// connection, and does not hand it over. From its proof our own ClientKey is found (RFC 5802
// section 3: the proof is ClientKey XOR ClientSignature), which opens the server's
// (ownkeys.go), and with that the login to the server is made, bound to ours.

// A secret is what an account can prove who it is with.
type secret interface {
	// prover is the client's side of a SCRAM exchange; nil where the secret has no part in
	// the mechanism. A nil binding is none; unseen says that the server seems to have none.
	prover(m *scramMechanism, b *scram.ChannelBinding, unseen bool) (prover, *loginError)
	// plain is the name and password themselves, where there are any.
	plain() (credentials, bool)
}

// A prover takes the server's messages by turns with the client's own (the first answers
// nothing), and is valid once the server has proved itself too.
type prover interface {
	Step(challenge string) (string, error)
	Valid() bool
}

// A shown is a secret of which only the ClientKey is known, of one mechanism.
type shown struct {
	user      string
	keys      *enrolment
	clientKey []byte
}

func (s shown) plain() (credentials, bool) { return credentials{}, false }

func (s shown) prover(m *scramMechanism, b *scram.ChannelBinding, unseen bool) (prover, *loginError) {
	if m.name != s.keys.Mechanism {
		return nil, nil
	}
	k := &keyed{shown: s, m: m, gs2: "n,,", nonce: rand.Text()}
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
	shown
	m         *scramMechanism
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
		k.bare = "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(k.user) + ",r=" + k.nonce
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
	if string(salt) != string(k.keys.Salt) || n != k.keys.Iterations {
		return "", errStale
	}
	final := "c=" + base64.StdEncoding.EncodeToString(append([]byte(k.gs2), k.binding...)) + "," + f[0]
	auth := []byte(k.bare + "," + challenge + "," + final)
	k.signature = k.m.mac(k.keys.ServerKey, auth)
	return final + ",p=" + base64.StdEncoding.EncodeToString(xor(k.clientKey, k.m.mac(k.keys.StoredKey, auth))), nil
}

func (m *scramMechanism) mac(key, data []byte) []byte {
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

// mechanismOf is the mechanism of a name, with -PLUS or without; nil for none.
func mechanismOf(name string) *scramMechanism {
	i := slices.IndexFunc(mechanisms, func(m *scramMechanism) bool { return m.name == strings.TrimSuffix(name, "-PLUS") })
	if i < 0 {
		return nil
	}
	return mechanisms[i]
}

// bindings are the channel bindings of a client's connection, as its server sees them.
func (c *client) bindings() (out []scram.ChannelBinding) {
	if c.over == nil {
		return nil
	}
	cs := c.over.ConnectionState()
	if cs.Version >= tls.VersionTLS13 {
		if b, err := scram.NewTLSExporterBinding(&cs); err == nil { // RFC 9266
			out = append(out, b)
		}
	} else if len(cs.TLSUnique) > 0 {
		out = append(out, scram.NewTLSUniqueBinding(cs.TLSUnique))
	}
	if c.leaf != nil { // RFC 5929 section 4.1; our certificates are signed with SHA-256
		sum := sha256.Sum256(c.leaf)
		out = append(out, scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: sum[:]})
	}
	return out
}

// prove has a client prove that it knows the password of an enrolled account. Nil with no
// error is a failure of which the client was told.
func (c *client) prove(mech, initial string) (*claim, error) {
	m := mechanismOf(mech)
	first, err := c.response(initial)
	if err != nil || first == nil {
		return nil, err
	}
	if strings.HasSuffix(mech, "-PLUS") != strings.HasPrefix(string(first), "p=") {
		return nil, c.again("malformed-request", "")
	}
	var s shown
	var account string
	server, err := m.fcn.NewServer(func(user string) (scram.StoredCredentials, error) {
		s.user = c.localpart(user)
		if account, s.keys = c.keysOf(s.user, m); s.keys == nil {
			return scram.StoredCredentials{}, errors.New("not enrolled")
		}
		return scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(s.keys.Own.Salt), Iters: s.keys.Own.Iterations}, StoredKey: s.keys.Own.StoredKey, ServerKey: s.keys.Own.ServerKey}, nil
	})
	if err != nil {
		return nil, err
	}
	conv, bound := c.exchange(server, string(first))
	challenge, err := conv.Step(string(first))
	switch enrol := "otrproxy login enroll " + s.user + "@" + c.domain.Name; {
	case err == nil:
	case s.user != "" && s.keys == nil && c.n.accounts.vault.locked():
		return nil, c.noFiles(s.user+"@"+c.domain.Name, otrlayer.ErrLocked)
	case s.user != "" && s.keys == nil:
		c.n.logins.offerPlain(c.place(), "")
		return nil, c.again("invalid-mechanism", "This account is not enrolled for SCRAM with otrproxy; try again, or have its administrator enrol it: "+enrol)
	case strings.HasPrefix(string(first), "p="):
		return nil, c.again("malformed-request", "otrproxy does not know this kind of channel binding here.")
	case strings.HasPrefix(string(first), "y,"):
		return nil, c.again("not-authorized", "Somebody between the client and otrproxy has hidden that logins can be bound to the connection; the login was broken off.")
	default:
		return nil, c.again("malformed-request", "")
	}
	if _, err := c.conn.Write(fmt.Appendf(nil, "<challenge xmlns='%s'>%s</challenge>", stanza.NSSASL, base64.StdEncoding.EncodeToString([]byte(challenge)))); err != nil {
		return nil, err
	}
	final, err := c.response("")
	if err != nil || final == nil {
		return nil, err
	}
	t := c.n.logins.guesses.turn(c.n.ctx, guessed{account, c.place()}, [32]byte{}, c.patience())
	if t == nil {
		c.n.metrics.refused(RefusedLogins)
		return nil, c.again("temporary-auth-failure", tooManyTries)
	}
	last, err := conv.Step(string(final))
	if err != nil || !conv.Valid() {
		t.wrong()
		c.n.logins.offerPlain(c.place(), account)
		return nil, c.again("not-authorized", "The password is not the one with which this account was enrolled with otrproxy. If you changed it elsewhere, log in again by the password itself (PLAIN), and confirm that it was you; or enrol the account anew: otrproxy login enroll "+s.user+"@"+c.domain.Name)
	}
	t.right()
	own := clientKey(m, s.keys.Own.StoredKey, string(first), challenge, string(final))
	if own == nil {
		return nil, c.again("malformed-request", "")
	}
	if s.clientKey, err = s.keys.Own.open(m, own); err != nil {
		return nil, c.noFiles(account, err)
	}
	if c.entered = mech; bound != "" {
		c.entered += " " + bound
	}
	claim, err := c.claimed(s.user, conv.AuthzID(), s)
	if claim != nil {
		claim.last = last
	}
	return claim, err
}

// exchange is our side of a SCRAM exchange that begins with first, and the binding that it
// asks for. What was offered counts: a client that could bind and was not offered it has
// been deceived, and says so ("y").
func (c *client) exchange(server *scram.Server, first string) (conv *scram.ServerConversation, bound string) {
	conv = server.NewConversation()
	for i, b := range c.bindings() {
		asked := strings.HasPrefix(first, "p="+string(b.Type)+",")
		if i == 0 || asked {
			conv = server.NewConversationWithChannelBinding(b)
		}
		if asked {
			return conv, string(b.Type)
		}
	}
	return conv, ""
}

// clientKey is what an exchange that was checked has shown (RFC 5802 section 3); nil where
// the proof's length is wrong.
func clientKey(m *scramMechanism, stored []byte, first, challenge, final string) []byte {
	bare := strings.SplitN(first, ",", 3)[2]
	at := max(strings.LastIndex(final, ",p="), 0)
	sent, err := base64.StdEncoding.DecodeString(final[min(at+3, len(final)):])
	if err != nil || len(sent) != m.new().Size() {
		return nil
	}
	return xor(sent, m.mac(stored, []byte(bare+","+challenge+","+final[:at])))
}

// keysOf is a user's account, and what verifies its login; nil where it is not enrolled.
func (c *client) keysOf(user string, m *scramMechanism) (account string, _ *enrolment) {
	bare, err := jid.New(user, c.domain.Name, "")
	if err != nil {
		return "", nil
	}
	account = bare.String()
	e, err := c.n.logins.enrolled(account)
	if err != nil {
		c.n.log.Warn("what an account is enrolled with cannot be read", "account", c.n.log.name(account))
		return account, nil
	}
	return account, e.proves(m.name)
}
