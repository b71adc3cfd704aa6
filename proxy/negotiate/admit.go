package negotiate

import (
	"context"
	"strings"
	"time"

	"otrproxy/proxy/address"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/hostname"
	"otrproxy/proxy/sasl"
)

// admitted logs in to the server with what the client has shown, and returns how; "" for a
// failure of which the client was told.
func (c *client) admitted(ctx context.Context, who *claim) (how string, err error) {
	if f := c.welcome(who.account); f != nil {
		c.n.Log.Info("an account was refused", "account", c.n.Log.Name(who.account), "cause", f.Cause)
		return "", c.broken("temporary-auth-failure", f)
	}
	creds, plain := who.secret.Plain()
	var t *sasl.Try
	if plain { // proofs have been counted already
		c.password = c.n.Logins.Passwords.Sum(who.account, creds.Password)
		if c.n.Logins.Passwords.IsRefused(c.password) {
			c.n.Metrics.Refused(causes.RefusedLogins)
			return "", c.again("not-authorized", sasl.RefusedPassword)
		}
		if t = c.n.Logins.Guesses.Turn(ctx, sasl.Guessed{Account: who.account, Place: c.Place()}, c.password, c.patience()); t == nil {
			c.n.Metrics.Refused(causes.RefusedLogins)
			return "", c.again("temporary-auth-failure", sasl.TooManyTries)
		}
		defer t.Over()
	}
	least, _, err := c.n.Logins.Least(who.account)
	if err != nil {
		return "", c.noFiles(who.account, err)
	}
	le := &sasl.LoginError{Condition: "temporary-auth-failure"}
	if le.Failure = c.reach(ctx, who.account); le.Failure == nil {
		c.asked = &sasl.Server{Leg: c.up}
		how, le = c.asked.Login(who.secret, least)
	}
	if le == nil {
		return c.letIn(who.account, how, creds, t)
	}
	f := le.Failure
	switch {
	case le.Gone != "":
		f.Text += " Log in again; where the client has no other way, enrol the account anew: otrproxy login enroll " + who.account
		c.n.Logins.Without(who.account, le.Gone)
	case le.Stale:
		f.Text += " Log in with the password once, if the client can, and confirm that it was you; or enrol the account anew: otrproxy login enroll " + who.account
		c.n.Logins.Stale(who.account)
		c.n.Logins.OfferPlain(c.Place(), who.account)
	case f.Cause == causes.FailDowngrade:
		c.n.Logins.FellBehind(who.account, f)
	}
	if c.up != nil { // else it was counted already
		c.n.Metrics.UpstreamFailed(f.Cause)
	}
	c.n.Log.Info("a login failed", "account", c.n.Log.Name(who.account), "cause", f.Cause, "why", c.n.Log.Redact(f, who.account))
	if !le.Refused {
		return "", c.broken(le.Condition, f)
	}
	if plain && le.Word == "not-authorized" { // the server would hold it against everybody who comes from here
		t.Wrong()
	}
	return "", c.again(le.Condition, f.Text)
}

// patience is how long a client waits for its turn to try a password.
func (c *client) patience() time.Duration { return time.Until(c.deadline) / 2 }

// letIn gives a client whom the server has let in its place, and says what it is worth here.
// A proof has no try.
func (c *client) letIn(account, how string, creds sasl.Credentials, t *sasl.Try) (string, error) {
	if f := c.n.Servers.Acquaint(c.up); f != nil {
		return "", c.broken("temporary-auth-failure", f)
	}
	limits := c.n.Config().Limits
	if !c.n.Gate.Settle(c.Visitor, limits) {
		c.n.Metrics.Refused(causes.RefusedSessions)
		return "", c.broken("temporary-auth-failure", causes.New(causes.FailLimit, nil, "%s", causes.RefusalText[causes.RefusedSessions]))
	}
	var f *causes.Failure
	if c.seat, f = c.n.Accounts.Sit(account, limits); f != nil { // what follows is undone when it is left
		return "", c.broken("temporary-auth-failure", f)
	}
	a, err := c.n.Accounts.Open(account)
	if err != nil {
		return "", c.noFiles(account, err)
	}
	c.epoch = c.n.Logins.Passwords.Epoch(account)
	who := sasl.Known
	if t != nil {
		if who, err = c.n.Logins.Recognise(account, creds); err != nil {
			return "", c.noFiles(account, err)
		}
	}
	if who == sasl.Strange {
		st, fresh, out := c.n.Logins.Strange(a, how, c.Host(), creds, c.asked)
		if fresh {
			c.n.Relay.TellOfStranger(st)
		}
		if fresh || out == sasl.TooMany { // whoever guesses what is known here sees whether it was
			t.Sum = [32]byte{}
			t.Wrong()
		}
		switch out {
		case sasl.IsPerson:
			who = sasl.Known
		case sasl.Unwanted:
			return "", c.broken("not-authorized", causes.New(causes.FailAccess, nil, "%s", sasl.RefusedPassword))
		case sasl.TooMany:
			c.n.Metrics.Refused(causes.RefusedLogins)
			return "", c.broken("temporary-auth-failure", causes.New(causes.FailLimit, nil, "Several logins with other passwords than the one known here wait already. Where you are logged in, write login confirm or login refuse to otrproxy.localhost; or ask the administrator."))
		}
		c.stranger = st
	}
	if who == sasl.Strange {
		if f := c.n.Accounts.Reseat(c.seat, true, limits.PerAccount); f != nil {
			return "", c.broken("temporary-auth-failure", f)
		}
		return how, nil
	}
	c.first = who == sasl.First
	c.n.Accounts.OnceMade(account, func() {
		c.n.Logins.Admitted(account, how, nil)
		if err := c.n.Machine.CA.Keep(address.DomainOf(account)); err != nil {
			c.n.Log.Warn("the certificate that clients are shown could not be kept", "domain", address.DomainOf(account))
		}
	})
	if t != nil {
		t.Right()
		asked := c.asked
		c.n.Logins.InStep(account, func() *sasl.Enrolment { return asked.Enrolment(creds, how) })
		c.n.Logins.KeepsFirst(account, creds.Password)
	}
	return how, nil
}

// welcome is why an account may not be used, or not once more; nil where it may.
func (c *client) welcome(account string) *causes.Failure {
	cfg := c.n.Config()
	if ok, why := cfg.MayUse(account, hostname.AddressOf(c.Raw.RemoteAddr())); !ok {
		c.n.Metrics.Refused(causes.RefusedAccess)
		return causes.New(causes.FailAccess, nil, "This otrproxy does not serve %s here: %s.", account, strings.TrimSuffix(why, "."))
	}
	return c.n.Accounts.MayCome(account, cfg.Limits)
}
