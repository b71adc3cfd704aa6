package relay

import (
	"strings"
	"sync"

	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
	"otrproxy/proxy/service"
	"otrproxy/stanza"
)

// A password that a client changes (XEP-0077 section 3.3) is followed once the server has
// agreed: it is the one that is known here, and where the account is enrolled, it is enrolled
// anew.

const nsRegister = "jabber:iq:register"

// The passwords are those that a client has asked its server for.
type passwords struct {
	mu       sync.Mutex
	changing map[string]string // by id of the request; "" for the end of the account; mu guards it
}

// changes notes a request that changes the password, or ends the account.
func (s *Session) changes(root stanza.Element, to address.JID) {
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
	s.passwords.mu.Lock()
	defer s.passwords.mu.Unlock()
	if s.passwords.changing == nil || len(s.passwords.changing) > 16 {
		s.passwords.changing = map[string]string{}
	}
	s.passwords.changing[root.Attr("id")] = text
}

// registered is a field of a registration, which may stand in a form.
func registered(query stanza.Element, name string) (value string) {
	if el, ok := query.Child(nsRegister, name); ok {
		return el.Text()
	}
	if form, ok := query.Child(nsData, "x"); ok {
		value, _ = service.FormValue(form, name, true)
	}
	return value
}

// changed acts on the server's answer to that.
func (s *Session) changed(root stanza.Element) {
	s.passwords.mu.Lock()
	password, ok := s.passwords.changing[root.Attr("id")]
	delete(s.passwords.changing, root.Attr("id"))
	s.passwords.mu.Unlock()
	if !ok || root.Attr("type") != "result" || s.stranger.Load() != nil {
		return
	}
	if password == "" {
		s.r.log.Info("an account has ended at its server", "account", s.r.log.Name(s.jid))
		if err := s.r.Logins.ForgetLogin(s.jid); err != nil {
			s.r.log.Warn("what was remembered of an account's logins could not be removed", "account", s.r.log.Name(s.jid))
		}
		return
	}
	if err := s.comes(); err != nil { // who changes the password makes use of the account
		s.endBeside("internal-server-error", err.Error())
		return
	}
	e, err := s.r.Logins.Enrolled(s.jid)
	s.r.Logins.Passwords.Learn(s.jid, s.r.Logins.Passwords.Sum(s.jid, password)) // the next login with it is the person's
	s.r.Running.Go(func() {                                                      // it takes a while, and the server is asked in a connection of its own
		if err := s.r.Logins.KeepPassword(s.jid, password); err != nil {
			s.r.log.Warn("what recognises a password could not be kept", "account", s.r.log.Name(s.jid))
			s.Say(address.ServiceJID, "Your password was changed, but I could not remember it: after a restart I take you for somebody else until you confirm that it is you.")
		}
		if err != nil || e == nil {
			return
		}
		if _, err := s.r.Logins.EnrolWith(s.r.ctx, s.jid, password); err != nil {
			s.r.Logins.Stale(s.jid)
			s.Say(address.ServiceJID, "Your password was changed, but the account could not be enrolled with it: "+control.Sentence(err)+" Log in with the password once, or have the administrator run: otrproxy login enroll "+s.jid)
			return
		}
		s.Say(address.ServiceJID, "Your password was changed. The account stays enrolled with otrproxy, now with the new one.")
	})
}
