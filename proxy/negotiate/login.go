package negotiate

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"mellium.im/xmpp/jid"

	"otrproxy/otrlayer"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/sasl"
	"otrproxy/proxy/state"
	"otrproxy/stanza"
)

const maxLogins = 5 // attempts on one connection

// login takes the client's credentials and uses them upstream. Requests to
// register a new account (XEP-0077) are passed on before it.
func (c *client) login(ctx context.Context) (account *otrlayer.Account, how string, err error) {
	for {
		st, err := c.next()
		if err != nil {
			return nil, "", err
		}
		root := st.Root()
		switch {
		case st.Is(stanza.NSSASL, "auth"):
			account, how, err := c.auth(ctx, root.Attr("mechanism"), root.Text())
			if err != nil || account != nil {
				return account, how, err
			}
		case st.Is(stanza.NSClient, "iq"):
			if err := c.register(ctx, st); err != nil {
				return nil, "", err
			}
		case st.Is(stanza.NSSASL, "abort"):
			c.saslFailure("aborted", "")
		default:
			c.streamError("not-authorized", "Log in first.")
			return nil, "", errEnded
		}
	}
}

func (c *client) saslFailure(condition, text string) {
	b := []byte("<failure xmlns='" + stanza.NSSASL + "'><" + condition + "/>")
	if text != "" {
		b = append(stanza.AppendEscaped(append(b, "<text xml:lang='en'>"...), text), "</text>"...)
	}
	c.Conn.Write(append(b, "</failure>"...))
}

// again tells a client that a login has failed, and leaves the stream open for another
// try, up to maxLogins.
func (c *client) again(condition, text string) error {
	c.n.Log.Debug("a client's login was refused", "domain", c.domain.Name, "entry", c.Entry, "condition", condition)
	c.saslFailure(condition, text)
	if c.failures++; c.failures >= maxLogins {
		c.streamError("policy-violation", "Too many failed logins.")
		return errEnded
	}
	return nil
}

// broken tells a client of a login that failed for another reason than the server's own
// refusal; another try makes no sense then.
func (c *client) broken(condition string, f *causes.Failure) error {
	c.saslFailure(condition, f.Text)
	c.streamError(f.Cause.Condition(), f.Text)
	c.n.Relay.TurnedAway.Note(c.domain.Name, f)
	return errEnded
}

// A claim is who a client says it is, and what proves it.
type claim struct {
	account string // bare JID
	secret  sasl.Secret
	last    string // what proves us to the client once it is let in
}

// auth handles one login of the client. Account is nil for a failure of which the client
// was told, and that leaves it another try.
func (c *client) auth(ctx context.Context, mech, initial string) (account *otrlayer.Account, how string, err error) {
	var who *claim
	known := mech == "PLAIN" || sasl.MechanismOf(mech) != nil
	if known && strings.TrimSpace(initial) == "" {
		if _, err := c.Conn.Write([]byte("<challenge xmlns='" + stanza.NSSASL + "'/>")); err != nil {
			return nil, "", err
		}
	}
	switch {
	case mech == "PLAIN":
		who, err = c.plain(initial)
	case known:
		who, err = c.prove(mech, initial)
	default:
		err = c.again("invalid-mechanism", "PLAIN is offered here, and SCRAM for accounts that are enrolled; the connection to the server uses the strongest there is.")
	}
	if who == nil {
		return nil, "", err
	}
	if how, err = c.admitted(ctx, who); how == "" {
		return nil, "", err
	}
	if account, err = c.n.Accounts.Open(who.account); err == nil {
		c.last = who.last
		return account, how, nil
	}
	return nil, "", c.noFiles(who.account, err)
}

// noFiles tells of an account whose files cannot be used.
func (c *client) noFiles(account string, err error) error {
	if errors.Is(err, keyring.ErrLocked) {
		err = state.LockedError()
	}
	c.n.Metrics.UpstreamFailed(causes.FailState)
	c.n.Log.Error("an account's files cannot be used", "account", c.n.Log.Name(account), "err", strings.ReplaceAll(err.Error(), account, c.n.Log.Name(account)))
	return c.broken("temporary-auth-failure", causes.New(causes.FailState, err, "otrproxy cannot use the files of this account: %v.", err))
}

// localpart is a user's name: some clients send the whole JID.
func (c *client) localpart(user string) string {
	if local, domain, ok := strings.Cut(user, "@"); ok && strings.EqualFold(domain, c.domain.Name) {
		return local
	}
	return user
}

// claimed checks what a client says of itself: whose account it is.
func (c *client) claimed(user, authzid string, s sasl.Secret) (*claim, error) {
	bare, err := jid.New(user, c.domain.Name, "")
	if err != nil {
		return nil, c.again("not-authorized", "This is not a valid user name.")
	}
	if authzid != "" {
		if z, err := jid.Parse(authzid); err != nil || !z.Bare().Equal(bare) {
			return nil, c.again("invalid-authzid", "")
		}
	}
	return &claim{account: bare.String(), secret: s}, nil
}

// plain takes a client's name and password (RFC 4616).
func (c *client) plain(initial string) (*claim, error) {
	b, err := c.response(initial)
	if err != nil || b == nil {
		return nil, err
	}
	authzid, creds, ok := sasl.ParsePlain(b)
	if !ok {
		return nil, c.again("malformed-request", "")
	}
	c.entered, creds.User = "PLAIN", c.localpart(creds.User)
	return c.claimed(creds.User, authzid, creds)
}

// response reads what a client answers in a login: initial where it was sent along
// already, else its next element. Nil with no error is a failure that it was told of.
func (c *client) response(initial string) ([]byte, error) {
	if initial = strings.TrimSpace(initial); initial == "" {
		st, err := c.next()
		if err != nil {
			return nil, err
		}
		if st.Is(stanza.NSSASL, "abort") {
			return nil, c.again("aborted", "")
		}
		if !st.Is(stanza.NSSASL, "response") {
			return nil, c.again("malformed-request", "")
		}
		initial = strings.TrimSpace(st.Root().Text())
	}
	b, err := base64.StdEncoding.DecodeString(initial)
	if err != nil {
		return nil, c.again("incorrect-encoding", "")
	}
	return b, nil
}
