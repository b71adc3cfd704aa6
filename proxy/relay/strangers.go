package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"otrproxy/proxy/address"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/control"
	"otrproxy/proxy/notify"
	"otrproxy/proxy/sasl"
)

// Confirm makes a stranger the account's person: their password is the one that is known from
// now on, and their sessions get what is the account's. By the administrator's word, whoever
// is there with another one is not the person.
func (r *Relay) Confirm(account, code string, administrator bool) error {
	a, err := r.Accounts.Open(account)
	if err != nil {
		return err
	}
	st, sessions, before := r.Logins.Passwords.Take(account, code, true)
	if st == nil {
		return ErrNoStranger
	}
	if err := st.Keep(); err != nil {
		r.Logins.Passwords.PutBack(st, before)
		return fmt.Errorf("that it was you could not be remembered: %w", err)
	}
	if administrator {
		r.Logins.Passwords.NextEpoch(account) // for those who are just logging in
		for _, s := range r.SessionsOf(account) {
			if s.password != st.Sum {
				s.TurnOut(sasl.NotThePerson)
			}
		}
	}
	for _, s := range sessions {
		s.Promote(a)
		s.Say(address.ServiceJID, "Thank you: this is you. Your private conversations are open here, too, and the password of this login is the one I know from now on.")
	}
	a.Inherit(st.Guest)
	r.log.Info("a login with another password was confirmed", "account", r.log.Name(account))
	r.Bell.Changed()
	return nil
}

// TurnOut ends a session of somebody who is not the account's person. From now on, nothing of
// the account reaches them: the end may have to wait for the server.
func (s *Session) TurnOut(why string) {
	s.demote()
	s.endBeside("not-authorized", why)
}

// ErrNoStranger is a code that nobody waits with.
var ErrNoStranger = errors.New("nobody waits with this code; it stands in the message that the other login got")

// RefuseLogin ends a stranger's sessions, and lets nobody in with that password for a while.
func (r *Relay) RefuseLogin(account, code string) error {
	st, sessions, _ := r.Logins.Passwords.Take(account, code, false)
	if st == nil {
		return ErrNoStranger
	}
	for _, s := range sessions {
		s.TurnOut(sasl.RefusedPassword)
	}
	r.log.Warn("a login with another password was refused by the account's person", "account", r.log.Name(account))
	r.Bell.Changed()
	return nil
}

// TellOfStranger tells an account's people of somebody who has come.
func (r *Relay) TellOfStranger(st *sasl.Stranger) {
	for _, s := range r.SessionsOf(st.Account) {
		s.Say(address.ServiceJID, st.Told())
	}
	r.Bell.Happened(notify.EventLoginUnknown, st.Account, address.DomainOf(st.Account))
	r.log.Warn("the server has let somebody in with another password than the one known here", "account", r.log.Name(st.Account))
}

// decided is for a stranger of whom somebody has said who they are while they logged in.
func (s *Session) decided(st *sasl.Stranger) {
	a, err := s.r.Accounts.Open(s.jid)
	if right, ok := s.r.Logins.Passwords.Of(s.jid); ok && right == st.Sum && err == nil {
		s.Promote(a)
		return
	}
	s.TurnOut(sasl.RefusedPassword)
}

// leaves notes the end of a stranger's session.
func (s *Session) leaves() {
	if st := s.stranger.Load(); st != nil {
		s.r.Logins.Passwords.Leaves(st, s)
	}
}

// greetsStrangers tells a session that has come what there is to say of strangers: theirs, or that
// they are one.
func (s *Session) greetsStrangers() {
	if st := s.stranger.Load(); st != nil {
		s.Say(address.ServiceJID, st.Shown())
		return
	}
	for _, st := range s.r.Logins.Passwords.Unconfirmed(s.jid) {
		s.Say(address.ServiceJID, st.Told())
	}
}

// strangersTable is all that a stranger can ask of us.
func (s *Session) strangersTable() control.Table {
	var t control.Table
	t = control.Table{
		{Name: "help", Help: "lists the commands", Chat: true, Reads: true, Args: []control.Arg{{Name: "command", Kind: control.Rest, Optional: true, Label: "Which one"}},
			Run: func(_ context.Context, c control.Call) (control.Reply, error) {
				r, err := t.HelpFor(c)
				if st := s.stranger.Load(); st != nil && c.Arg("command") == "" {
					r.Text = st.Shown() + "\n" + r.Text
				}
				return r, err
			}},
		{Name: "login prove", Short: "prove", Help: "shows that this is your account, by the password you had before; it stays on this machine", Chat: true,
			Args: []control.Arg{{Name: "password", Kind: control.Secret, Label: "The password from before"}}, Run: s.prove},
	}
	return t
}

// prove takes the password from before from somebody who has logged in with another one.
func (s *Session) prove(ctx context.Context, c control.Call) (control.Reply, error) {
	st := s.stranger.Load()
	if st == nil {
		return control.Did("There is nothing to prove any more.")
	}
	t := s.r.Logins.Guesses.Turn(ctx, sasl.Guessed{Account: s.jid, Place: s.place}, s.r.Logins.Passwords.Sum(s.jid, c.Arg("password")), control.CommandLimit/2)
	if t == nil {
		s.r.Metrics.Refused(causes.RefusedLogins)
		return control.Reply{}, errors.New("too many wrong passwords were tried; wait a minute")
	}
	defer t.Over()
	local, _, _ := strings.Cut(s.jid, "@")
	fits, there, err := s.r.Logins.Satisfies(s.jid, sasl.Credentials{User: local, Password: c.Arg("password")})
	if err != nil {
		return control.Reply{}, err
	}
	if !fits || !there {
		t.Wrong()
		return control.Reply{}, errors.New("this is not the password I know; if you have forgotten it, the administrator can help: otrproxy login confirm " + s.jid + " " + st.Code)
	}
	t.Right()
	if err := s.r.Confirm(s.jid, st.Code, false); err != nil && !errors.Is(err, ErrNoStranger) {
		return control.Reply{}, err
	}
	return control.Reply{}, nil // confirm has said it
}
