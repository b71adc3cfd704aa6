package negotiate

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/xdg-go/scram"
	"mellium.im/xmpp/jid"

	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/sasl"
	"otrproxy/stanza"
)

// bindings are the channel bindings of a client's connection, as its server sees them.
func (c *client) bindings() (out []scram.ChannelBinding) {
	if c.TLSConn == nil {
		return nil
	}
	cs := c.TLSConn.ConnectionState()
	if cs.Version >= tls.VersionTLS13 {
		if b, err := scram.NewTLSExporterBinding(&cs); err == nil { // RFC 9266
			out = append(out, b)
		}
	} else if len(cs.TLSUnique) > 0 {
		out = append(out, scram.NewTLSUniqueBinding(cs.TLSUnique))
	}
	if c.Leaf != nil { // RFC 5929 section 4.1; our certificates are signed with SHA-256
		sum := sha256.Sum256(c.Leaf)
		out = append(out, scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: sum[:]})
	}
	return out
}

// prove has a client prove that it knows the password of an enrolled account. Nil with no
// error is a failure of which the client was told.
func (c *client) prove(mech, initial string) (*claim, error) {
	m := sasl.MechanismOf(mech)
	first, err := c.response(initial)
	if err != nil || first == nil {
		return nil, err
	}
	if strings.HasSuffix(mech, "-PLUS") != strings.HasPrefix(string(first), "p=") {
		return nil, c.again("malformed-request", "")
	}
	var s sasl.Shown
	var account string
	server, err := m.Generator.NewServer(func(user string) (scram.StoredCredentials, error) {
		s.User = c.localpart(user)
		if account, s.Keys = c.keysOf(s.User, m); s.Keys == nil {
			return scram.StoredCredentials{}, errors.New("not enrolled")
		}
		return scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(s.Keys.Own.Salt), Iters: s.Keys.Own.Iterations}, StoredKey: s.Keys.Own.StoredKey, ServerKey: s.Keys.Own.ServerKey}, nil
	})
	if err != nil {
		return nil, err
	}
	conv, bound := c.exchange(server, string(first))
	challenge, err := conv.Step(string(first))
	switch enrol := "otrproxy login enroll " + s.User + "@" + c.domain.Name; {
	case err == nil:
	case s.User != "" && s.Keys == nil && c.n.Accounts.Vault.Locked():
		return nil, c.noFiles(s.User+"@"+c.domain.Name, keyring.ErrLocked)
	case s.User != "" && s.Keys == nil:
		c.n.Logins.OfferPlain(c.Place(), "")
		return nil, c.again("invalid-mechanism", "This account is not enrolled for SCRAM with otrproxy; try again, or have its administrator enrol it: "+enrol)
	case strings.HasPrefix(string(first), "p="):
		return nil, c.again("malformed-request", "otrproxy does not know this kind of channel binding here.")
	case strings.HasPrefix(string(first), "y,"):
		return nil, c.again("not-authorized", "Somebody between the client and otrproxy has hidden that logins can be bound to the connection; the login was broken off.")
	default:
		return nil, c.again("malformed-request", "")
	}
	if _, err := c.Conn.Write(fmt.Appendf(nil, "<challenge xmlns='%s'>%s</challenge>", stanza.NSSASL, base64.StdEncoding.EncodeToString([]byte(challenge)))); err != nil {
		return nil, err
	}
	final, err := c.response("")
	if err != nil || final == nil {
		return nil, err
	}
	t := c.n.Logins.Guesses.Turn(c.n.Context, sasl.Guessed{Account: account, Place: c.Place()}, [32]byte{}, c.patience())
	if t == nil {
		c.n.Metrics.Refused(causes.RefusedLogins)
		return nil, c.again("temporary-auth-failure", sasl.TooManyTries)
	}
	last, err := conv.Step(string(final))
	if err != nil || !conv.Valid() {
		t.Wrong()
		c.n.Logins.OfferPlain(c.Place(), account)
		return nil, c.again("not-authorized", "The password is not the one with which this account was enrolled with otrproxy. If you changed it elsewhere, log in again by the password itself (PLAIN), and confirm that it was you; or enrol the account anew: otrproxy login enroll "+s.User+"@"+c.domain.Name)
	}
	t.Right()
	own := sasl.ClientKey(m, s.Keys.Own.StoredKey, string(first), challenge, string(final))
	if own == nil {
		return nil, c.again("malformed-request", "")
	}
	if s.ClientKey, err = s.Keys.Own.Open(m, own); err != nil {
		return nil, c.noFiles(account, err)
	}
	if c.entered = mech; bound != "" {
		c.entered += " " + bound
	}
	claim, err := c.claimed(s.User, conv.AuthzID(), s)
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

// keysOf is a user's account, and what verifies its login; nil where it is not enrolled.
func (c *client) keysOf(user string, m *sasl.Mechanism) (account string, _ *sasl.Enrolment) {
	bare, err := jid.New(user, c.domain.Name, "")
	if err != nil {
		return "", nil
	}
	account = bare.String()
	e, err := c.n.Logins.Enrolled(account)
	if err != nil {
		c.n.Log.Warn("what an account is enrolled with cannot be read", "account", c.n.Log.Name(account))
		return account, nil
	}
	return account, e.Proves(m.Name)
}
