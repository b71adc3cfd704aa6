package sasl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/xdg-go/scram"
	"mellium.im/xmpp/jid"

	"otrproxy/proxy/causes"
)

// one is a secret that is used with one mechanism only.
type one struct {
	Secret
	m *Mechanism
}

func (o one) Plain() (Credentials, bool) { return Credentials{}, false }

func (o one) prover(m *Mechanism, b *scram.ChannelBinding, unseen bool) (prover, *LoginError) {
	if m != o.m {
		return nil, nil
	}
	return o.Secret.prover(m, b, unseen)
}

// EnrolWith enrols an account for every kind of SCRAM its server has: each is tried there,
// for each may have a salt of its own.
func (lo *Logins) EnrolWith(ctx context.Context, account, password string) (names []string, err error) {
	j, err := jid.Parse(account)
	if err != nil {
		return nil, err
	}
	d, ok := lo.config().Domain(j.Domainpart())
	if !ok {
		return nil, fmt.Errorf("the configuration does not allow %s; its domains are listed under \"domains\"", j.Domainpart())
	}
	least, _, err := lo.Least(account)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lo.config().Limits.Login)
	defer cancel()
	var all Enrolments
	var offered []string
	var weaker error
	var best Strength
	creds := Credentials{j.Localpart(), password}
	for _, m := range mechanisms {
		if offered != nil && !slices.Contains(offered, m.Name) && !slices.Contains(offered, m.Name+"-PLUS") {
			continue
		}
		e, s, err := lo.enrolBy(ctx, d.Name, account, creds, m, least, &offered)
		if f, ok := err.(*causes.Failure); ok && f.Cause == causes.FailDowngrade { // of no use to this account
			weaker = err
			continue
		}
		if err != nil {
			return nil, err
		}
		if e == nil || s < best { // a client that used it would have the server let us in by less
			continue
		}
		if s > best {
			all = nil
		}
		all, best = append(all, *e), s
	}
	if len(all) == 0 && weaker != nil {
		return nil, weaker
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the server of %s has no SCRAM (offered: %s), so there is nothing to enrol for", d.Name, words(offered))
	}
	again, _, err := lo.enrolBy(ctx, d.Name, account, creds, MechanismOf(all[0].Mechanism), least, &offered)
	if err != nil {
		return nil, err
	}
	if again == nil || !bytes.Equal(again.Salt, all[0].Salt) || again.Iterations != all[0].Iterations {
		return nil, fmt.Errorf("the server of %s has another salt for each login, as servers do that keep passwords as they are, so its accounts cannot be enrolled; ask the people who run it to keep them hashed (for SCRAM)", d.Name)
	}
	for _, e := range all {
		names = append(names, e.Mechanism)
	}
	if err := lo.enrol(account, all); err != nil {
		return nil, err
	}
	return names, lo.KeepPassword(account, password)
}

// enrolBy logs in by one mechanism; nil where the server has not got it.
func (lo *Logins) enrolBy(ctx context.Context, domain, account string, creds Credentials, m *Mechanism, least Strength, offered *[]string) (*Enrolment, Strength, error) {
	d, ok := lo.config().Domain(domain)
	if !ok {
		return nil, 0, fmt.Errorf("the configuration does not allow %s any more", domain)
	}
	u, f := lo.Servers.Dial(ctx, d, account)
	if f != nil {
		return nil, 0, f
	}
	defer u.Conn.Close()
	stop := context.AfterFunc(ctx, func() { u.Conn.NetConn().Close() })
	defer stop()
	login := &Server{Leg: u}
	if *offered, _ = login.Offered(); !slices.Contains(*offered, m.Name) && !slices.Contains(*offered, m.Name+"-PLUS") {
		return nil, 0, nil
	}
	how, le := login.Login(one{creds, m}, least)
	if le != nil {
		lo.Servers.Failed(le.Failure.Cause)
		if le.Failure.Cause == causes.FailDowngrade {
			lo.FellBehind(account, le.Failure)
		}
		return nil, 0, le.Failure
	}
	if f := lo.Servers.Acquaint(u); f != nil {
		return nil, 0, f
	}
	lo.Admitted(account, how, nil)
	return login.Enrolment(creds, how), strengthOf(how), nil
}

// ForgetLogin begins anew with an account's logins.
func (lo *Logins) ForgetLogin(account string) error {
	lo.remembering.Lock()
	err := errors.Join(removed(lo.loginPath(account, loginFile)), lo.saveEnrolments(account, nil))
	lo.remembering.Unlock()
	lo.mu.Lock()
	delete(lo.weaker, account)
	lo.mu.Unlock()
	lo.Bell.Changed()
	return err
}
