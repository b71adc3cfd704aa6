package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xdg-go/scram"
	"mellium.im/xmpp/jid"

	"otrproxy/otrlayer"
	"otrproxy/proxy/control"
	"otrproxy/stanza"
)

// Logins: how strong they were, and accounts whose clients need not hand over the password.

func loginWords() []word {
	return []word{
		{control.Command{Name: "login list", Help: "shows how strongly each account has logged in to its server, and which are enrolled", Reads: true, Args: []control.Arg{anyAccount}}, (*desk).loginList},
		{control.Command{Name: "login enroll", Help: "enrols an account, so that its clients can log in here by SCRAM; the password is tried at the server and not kept",
			Args: []control.Arg{accountArg, {Name: "password", Kind: control.Secret, Label: "Password of the account"}}}, (*desk).loginEnrol},
		{control.Command{Name: "login forget", Help: "ends an account's enrolment, and forgets how strongly it has logged in; its password is recognised as before", Args: []control.Arg{accountArg}}, (*desk).loginForget},
		{control.Command{Name: "login confirm", Help: "says that a login with another password was yours; CODE stands in the message that it got. Without CODE, the administrator says that an account is its person's", Chat: true, Args: []control.Arg{accountArg, anyCode}}, (*desk).loginConfirm},
		{control.Command{Name: "login refuse", Help: "ends a login with another password, which was not yours, and lets nobody in with it", Chat: true, Args: []control.Arg{accountArg, codeArg}}, (*desk).loginRefuse},
	}
}

var (
	codeArg = control.Arg{Name: "code", Label: "The code that the other login was shown"}
	anyCode = control.Arg{Name: "code", Label: "The code that the other login was shown", Optional: true}
)

func (k *desk) loginConfirm(_ context.Context, c control.Call) (control.Reply, error) {
	account, err := bareJID(c.Arg("account"))
	switch {
	case err != nil:
	case c.Arg("code") != "":
		err = k.relay.confirm(account, c.Arg("code"), c.Account == "")
	case c.Account != "":
		err = errNoStranger
	}
	if err == nil && c.Account == "" {
		err = k.logins.vouch(account)
	}
	if err != nil {
		return control.Reply{}, err
	}
	if c.Account == "" && c.Arg("code") == "" {
		return control.Did("%s is known here by the password of their last logins; if they are one of admins, their chats may decide about servers.", account)
	}
	if c.Account == "" {
		return control.Did("%s is let in with that password; it is the one known here from now on.", account)
	}
	return control.Did("Good. The password of that login is the one I know from now on.")
}

func (k *desk) loginRefuse(_ context.Context, c control.Call) (control.Reply, error) {
	account, err := bareJID(c.Arg("account"))
	if err == nil {
		err = k.relay.refuseLogin(account, c.Arg("code"))
	}
	if err != nil {
		return control.Reply{}, err
	}
	return control.Did("That login is over, and nobody gets in with its password. The server let them in: change the password of %s, and ask the people who run the server.", account)
}

func (k *desk) loginLine(account string) (control.LoginLine, error) {
	l := control.LoginLine{Account: account, Enrolled: []string{}}
	e, err := k.logins.enrolled(account)
	for _, k := range e {
		if k.Own != nil {
			l.Enrolled = append(l.Enrolled, k.Mechanism)
		}
	}
	if err != nil && !errors.Is(err, otrlayer.ErrLocked) {
		return l, err
	}
	m, err := k.logins.loginsOf(account)
	if m != nil {
		l.Strength, l.Mechanism, l.Since = m.Strength, m.Mechanism, m.Since.Format(time.RFC3339)
	}
	return l, err
}

func (k *desk) loginList(_ context.Context, c control.Call) (control.Reply, error) {
	lines := []control.LoginLine{}
	var b strings.Builder
	for _, account := range k.accounts.known() {
		if c.Arg("account") != "" && c.Arg("account") != account {
			continue
		}
		l, err := k.loginLine(account)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", account, err)
			continue
		}
		lines = append(lines, l)
		how := "has not logged in yet"
		if l.Mechanism != "" {
			how = "logs in by " + l.Mechanism + " (" + map[string]string{"plain": "hands the server the password", "scram": "proves the password", "bound": "bound to the connection"}[l.Strength] + "), and by nothing less"
		}
		enrolled := "not enrolled"
		if len(l.Enrolled) > 0 {
			enrolled = "enrolled for " + strings.Join(l.Enrolled, ", ")
		}
		fmt.Fprintf(&b, "%s %s; %s\n", account, how, enrolled)
	}
	text := strings.TrimRight(b.String(), "\n")
	if text == "" {
		text = "no accounts yet"
	}
	return control.Reply{Text: text, Data: lines}, nil
}

func (k *desk) loginEnrol(ctx context.Context, c control.Call) (control.Reply, error) {
	account, err := bareJID(c.Arg("account"))
	if err != nil || !strings.Contains(account, "@") {
		return control.Reply{}, fmt.Errorf("%q is no account, such as alice@example.org", c.Arg("account"))
	}
	if k.vault.locked() {
		return control.Reply{}, errLocked()
	}
	names, err := k.logins.enrolWith(ctx, account, c.Arg("password"))
	if err == nil { // the administrator has given the password
		err = k.logins.vouch(account)
	}
	if err != nil {
		return control.Reply{}, err
	}
	return control.Did("%s is enrolled for %s: its clients can log in here without handing over the password, which is not kept.", account, strings.Join(names, ", "))
}

// one is a secret that is used with one mechanism only.
type one struct {
	secret
	m *scramMechanism
}

func (o one) plain() (credentials, bool) { return credentials{}, false }

func (o one) prover(m *scramMechanism, b *scram.ChannelBinding, unseen bool) (prover, *loginError) {
	if m != o.m {
		return nil, nil
	}
	return o.secret.prover(m, b, unseen)
}

// enrolWith enrols an account for every kind of SCRAM its server has: each is tried there,
// for each may have a salt of its own.
func (lo *logins) enrolWith(ctx context.Context, account, password string) (names []string, err error) {
	j, err := jid.Parse(account)
	if err != nil {
		return nil, err
	}
	d, ok := lo.config().Domain(j.Domainpart())
	if !ok {
		return nil, fmt.Errorf("the configuration does not allow %s; its domains are listed under \"domains\"", j.Domainpart())
	}
	least, _, err := lo.least(account)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lo.config().Limits.Login)
	defer cancel()
	var all enrolments
	var offered []string
	var weaker error
	var best strength
	creds := credentials{j.Localpart(), password}
	for _, m := range mechanisms {
		if offered != nil && !slices.Contains(offered, m.name) && !slices.Contains(offered, m.name+"-PLUS") {
			continue
		}
		e, s, err := lo.enrolBy(ctx, d.Name, account, creds, m, least, &offered)
		if f, ok := err.(*Failure); ok && f.Cause == FailDowngrade { // of no use to this account
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
	again, _, err := lo.enrolBy(ctx, d.Name, account, creds, mechanismOf(all[0].Mechanism), least, &offered)
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
	return names, lo.keepPassword(account, password)
}

// enrolBy logs in by one mechanism; nil where the server has not got it.
func (lo *logins) enrolBy(ctx context.Context, domain, account string, creds credentials, m *scramMechanism, least strength, offered *[]string) (*enrolment, strength, error) {
	d, ok := lo.config().Domain(domain)
	if !ok {
		return nil, 0, fmt.Errorf("the configuration does not allow %s any more", domain)
	}
	u, f := lo.servers.dial(ctx, d, account)
	if f != nil {
		return nil, 0, f
	}
	defer u.conn.Close()
	stop := context.AfterFunc(ctx, func() { u.conn.NetConn().Close() })
	defer stop()
	login := &server{upstream: u}
	if *offered, _ = login.offered(); !slices.Contains(*offered, m.name) && !slices.Contains(*offered, m.name+"-PLUS") {
		return nil, 0, nil
	}
	how, le := login.login(one{creds, m}, least)
	if le != nil {
		lo.servers.failed(le.failure.Cause)
		if le.failure.Cause == FailDowngrade {
			lo.fellBehind(account, le.failure)
		}
		return nil, 0, le.failure
	}
	if f := lo.servers.acquaint(u); f != nil {
		return nil, 0, f
	}
	lo.admitted(account, how, nil)
	return login.enrolment(creds, how), strengthOf(how), nil
}

func (k *desk) loginForget(_ context.Context, c control.Call) (control.Reply, error) {
	account, err := bareJID(c.Arg("account"))
	if err != nil || !slices.Contains(k.accounts.known(), account) {
		return control.Reply{}, fmt.Errorf("there is no account %s here", control.Clip(c.Arg("account")))
	}
	if err := k.logins.forgetLogin(account); err != nil {
		return control.Reply{}, err
	}
	return control.Did("%s is not enrolled, and its next login may be by whatever its server offers.", account)
}

// forgetLogin begins anew with an account's logins.
func (lo *logins) forgetLogin(account string) error {
	lo.remembering.Lock()
	err := errors.Join(removed(lo.loginPath(account, loginFile)), lo.saveEnrolments(account, nil))
	lo.remembering.Unlock()
	lo.mu.Lock()
	delete(lo.weaker, account)
	lo.mu.Unlock()
	lo.bell.changed()
	return err
}

// A password that a client changes (XEP-0077 section 3.3) is followed once the server has
// agreed: it is the one that is known here, and where the account is enrolled, it is enrolled
// anew.

const nsRegister = "jabber:iq:register"

// changes notes a request that changes the password, or ends the account.
func (s *session) changes(root stanza.Element, to address) {
	query, ok := root.Child(nsRegister, "query")
	if !ok || root.Attr("type") != "set" || s.home(to) != "" {
		return
	}
	if whose := registered(query, "username"); whose != "" && !strings.EqualFold(whose, s.jid[:strings.IndexByte(s.jid, '@')]) && !strings.EqualFold(whose, s.jid) {
		return // an administrator of the server's can change somebody else's
	}
	text := ""
	if _, ends := query.Child(nsRegister, "remove"); !ends {
		if text = registered(query, "password"); text == "" {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changing == nil || len(s.changing) > 16 {
		s.changing = map[string]string{}
	}
	s.changing[root.Attr("id")] = text
}

// registered is a field of a registration, which may stand in a form.
func registered(query stanza.Element, name string) (value string) {
	if el, ok := query.Child(nsRegister, name); ok {
		return el.Text()
	}
	if form, ok := query.Child(nsData, "x"); ok {
		value, _ = formValue(form, name, true)
	}
	return value
}

// changed acts on the server's answer to that.
func (s *session) changed(root stanza.Element) {
	s.mu.Lock()
	password, ok := s.changing[root.Attr("id")]
	delete(s.changing, root.Attr("id"))
	s.mu.Unlock()
	if !ok || root.Attr("type") != "result" || s.stranger.Load() != nil {
		return
	}
	if password == "" {
		s.r.log.Info("an account has ended at its server", "account", s.r.log.name(s.jid))
		if err := s.r.logins.forgetLogin(s.jid); err != nil {
			s.r.log.Warn("what was remembered of an account's logins could not be removed", "account", s.r.log.name(s.jid))
		}
		return
	}
	if err := s.comes(); err != nil { // who changes the password makes use of the account
		s.endBeside("internal-server-error", err.Error())
		return
	}
	e, err := s.r.logins.enrolled(s.jid)
	s.r.logins.passwords.is(s.jid, s.r.logins.passwords.sum(s.jid, password)) // the next login with it is the person's
	s.r.running.Go(func() {                                                   // it takes a while, and the server is asked in a connection of its own
		if err := s.r.logins.keepPassword(s.jid, password); err != nil {
			s.r.log.Warn("what recognises a password could not be kept", "account", s.r.log.name(s.jid))
			s.Notice(serviceJID, "Your password was changed, but I could not remember it: after a restart I take you for somebody else until you confirm that it is you.")
		}
		if err != nil || e == nil {
			return
		}
		if _, err := s.r.logins.enrolWith(s.r.ctx, s.jid, password); err != nil {
			s.r.logins.stale(s.jid)
			s.Notice(serviceJID, "Your password was changed, but the account could not be enrolled with it: "+control.Sentence(err)+" Log in with the password once, or have the administrator run: otrproxy login enroll "+s.jid)
			return
		}
		s.Notice(serviceJID, "Your password was changed. The account stays enrolled with otrproxy, now with the new one.")
	})
}
