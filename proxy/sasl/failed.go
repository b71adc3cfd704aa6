package sasl

import (
	"otrproxy/proxy/causes"
	"otrproxy/stanza"
)

// A LoginError is a login the server refused or failed at. Condition is what the
// client is told (RFC 6120 section 6.5).
type LoginError struct {
	Condition string
	Failure   *causes.Failure
	Refused   bool   // by the server itself, which is ready for another try
	Word      string // the server's own condition, where it refused
	first     bool   // the server refused our first message, before any proof of a password
	Stale     bool   // the account's enrolment is of no use any more

	Gone string // the mechanism for which it is of no use any more
}

// nothingOffered is a server that offers nothing we may use; the format is of its domain and of
// what it offers.
func nothingOffered(mechs []string, format, domain string) *LoginError {
	le := loginFailed("mechanism-too-weak", causes.FailMechanism, format, domain, words(mechs))
	le.Failure.Quoted = words(mechs)
	le.Refused = true // nothing was begun
	return le
}

func loginFailed(condition string, c causes.Cause, format string, args ...any) *LoginError {
	return &LoginError{Condition: condition, Failure: causes.New(c, nil, format, args...)}
}

// weaker is a login that would be worth less than one before.
func weaker(format string, args ...any) *LoginError {
	return loginFailed("temporary-auth-failure", causes.FailDowngrade, format, args...)
}

// stale is a login with keys of another password, or salt.
func stale(domain string) *LoginError {
	le := loginFailed("temporary-auth-failure", causes.FailSASL, "The server of %s has other keys of this account than it had when the account was enrolled with otrproxy; maybe the password was changed elsewhere.", domain)
	le.Stale = true
	return le
}

// gone is a login with keys of a mechanism that the server has not got any more, or not as
// strong as another.
func gone(domain, mechanism string) *LoginError {
	le := loginFailed("temporary-auth-failure", causes.FailSASL, "The server of %s does not have %s any more as it had when the account was enrolled with otrproxy, and has others.", domain, mechanism)
	le.Gone = mechanism
	return le
}

// refusedLogin maps the server's failure to what the client can act on. Only a
// wrong password is not-authorized: some clients forget the password on it.
func (u *Server) refusedLogin(root stanza.Element) *LoginError {
	cond, text := "temporary-auth-failure", "" // what names no reason is no wrong password
	for c := range root.Children() {
		if string(c.Local()) == "text" {
			text = c.Text()
		} else {
			cond = string(c.Local())
		}
	}
	if text != "" {
		text = " (" + causes.OneLine(text) + ")"
	}
	word := cond
	quote := func(le *LoginError) *LoginError {
		le.Failure.Quoted, le.Word = text, word
		return le
	}
	switch cond {
	case "not-authorized", "account-disabled", "credentials-expired", "invalid-authzid":
		return quote(loginFailed(cond, causes.FailSASL, "The server of %s refused the name or the password%s.", u.Domain.Name, text))
	case "mechanism-too-weak", "encryption-required":
		return quote(loginFailed("mechanism-too-weak", causes.FailMechanism, "The server of %s wants a stronger login%s.", u.Domain.Name, text))
	}
	if !plainWord.MatchString(cond) {
		cond = "undefined-condition"
	}
	return quote(loginFailed("temporary-auth-failure", causes.FailSASL, "The server of %s could not log you in: %s%s.", u.Domain.Name, cond, text))
}
