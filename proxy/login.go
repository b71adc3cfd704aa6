package proxy

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"hash"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"otrproxy/stanza"
)

// credentials live for one login.
type credentials struct{ user, password string }

type scramMechanism struct {
	name string
	fcn  scram.HashGeneratorFcn
	new  func() hash.Hash
}

// mechanisms are the ways to log in upstream, best first.
var mechanisms = []*scramMechanism{
	{"SCRAM-SHA-512", scram.SHA512, sha512.New},
	{"SCRAM-SHA-256", scram.SHA256, sha256.New},
	{"SCRAM-SHA-1", scram.SHA1, sha1.New},
}

// maxIterations caps the work a server may make us do for one login.
const maxIterations = 1_000_000

// A loginError is a login the server refused or failed at. Condition is what the
// client is told (RFC 6120 section 6.5).
type loginError struct {
	condition string
	failure   *Failure
	refused   bool   // by the server itself, which is ready for another try
	word      string // the server's own condition, where it refused
	first     bool   // the server refused our first message, before any proof of a password
	stale     bool   // the account's enrolment is of no use any more

	gone string // the mechanism for which it is of no use any more
}

// nothingOffered is a server that offers nothing we may use; the format is of its domain and of
// what it offers.
func nothingOffered(mechs []string, format, domain string) *loginError {
	le := loginFailed("mechanism-too-weak", FailMechanism, format, domain, words(mechs))
	le.failure.Quoted = words(mechs)
	le.refused = true // nothing was begun
	return le
}

func loginFailed(condition string, c FailureCause, format string, args ...any) *loginError {
	return &loginError{condition: condition, failure: fail(c, nil, format, args...)}
}

// A server is the server's side of a login, over a connection that is secured and checked.
type server struct {
	*upstream
	factors scram.KeyFactors // by which the last login was salted
}

// offered lists the SASL mechanisms and channel binding types (XEP-0440) in a
// server's features.
func (u *server) offered() (mechs, bindings []string) {
	root := u.features.Root()
	if m, ok := root.Child(stanza.NSSASL, "mechanisms"); ok {
		for c := range m.Children() {
			if c.Is(stanza.NSSASL, "mechanism") {
				mechs = append(mechs, strings.TrimSpace(c.Text()))
			}
		}
	}
	if b, ok := root.Child(nsSASLBinding, "sasl-channel-binding"); ok {
		for c := range b.Children() {
			bindings = append(bindings, c.Attr("type"))
		}
	}
	return mechs, bindings
}

// bindings are the channel bindings this connection can give, best first.
func channelBindings(cs tls.ConnectionState) (out []scram.ChannelBinding) {
	if cs.Version >= tls.VersionTLS13 {
		if b, err := scram.NewTLSExporterBinding(&cs); err == nil { // RFC 9266
			out = append(out, b)
		}
	} else if len(cs.TLSUnique) > 0 {
		out = append(out, scram.NewTLSUniqueBinding(cs.TLSUnique)) // RFC 5929, only sound below TLS 1.3
	}
	if b, err := scram.NewTLSServerEndpointBinding(&cs); err == nil {
		out = append(out, b)
	}
	return out
}

// bindings chooses among what this connection can give what the server names; a
// server that names nothing may have any.
func (u *server) bindings(named []string) (out []scram.ChannelBinding) {
	for _, b := range channelBindings(u.conn.ConnectionState()) {
		if len(named) == 0 || slices.Contains(named, string(b.Type)) {
			out = append(out, b)
		}
	}
	return out
}

// login authenticates with the strongest mechanism both sides have, and returns
// it with the channel binding used. Nothing weaker is tried than an earlier login was.
//
// A server that does not name its bindings (XEP-0440) may offer -PLUS with one
// that TLS 1.3 has not got; ejabberd 23.01 does. It says so in answer to our first
// message, before any proof of the password, and then the next binding is tried,
// and at last none; unless this server has bound a login before, for then somebody else
// may be answering.
func (u *server) login(s secret, least strength) (how string, le *loginError) {
	mechs, named := u.offered()
	anyPlus := slices.ContainsFunc(mechs, func(m string) bool { return strings.HasSuffix(m, "-PLUS") })
	tried := false
	for _, m := range mechanisms {
		if tried { // the hash makes no difference to the binding
			break
		}
		if !slices.Contains(mechs, m.name+"-PLUS") {
			continue
		}
		for _, b := range u.bindings(named) {
			conv, le := s.prover(m, &b, false)
			if le != nil {
				return "", le
			}
			if conv == nil {
				break
			}
			tried = true
			le = u.scram(m.name+"-PLUS", conv, m.new(), mechs, named)
			if le == nil || !le.first || len(named) > 0 {
				return m.name + "-PLUS " + string(b.Type), le
			}
		}
	}
	if k, ok := s.(shown); ok && !tried {
		name, best := k.keys.Mechanism, strongest(mechs)
		if best >= least && (least == byBinding || !slices.Contains(mechs, name)) && !slices.Contains(mechs, name+"-PLUS") {
			return "", gone(u.domain.Name, name)
		}
	}
	if least == byBinding {
		return "", weaker("The server of %s has tied logins to the encrypted connection before and does not now, which may mean that somebody is in between; the login was broken off.", u.domain.Name)
	}
	for _, m := range mechanisms {
		if !slices.Contains(mechs, m.name) {
			continue
		}
		// "y": a server that does have -PLUS finds out that it was hidden from us. Where there
		// is -PLUS, it is not with a binding that we have.
		conv, le := s.prover(m, nil, !anyPlus)
		if le != nil {
			return "", le
		}
		if conv != nil {
			return m.name, u.scram(m.name, conv, m.new(), mechs, named)
		}
	}
	if least == byProof {
		return "", weaker("The server of %s has let you prove your password before and wants to be given it now, which may mean that it was broken into; the login was broken off.", u.domain.Name)
	}
	if slices.Contains(mechs, "PLAIN") {
		if c, ok := s.plain(); ok && u.domain.PlainUpstream {
			return "PLAIN", u.plain(c)
		}
		return "", nothingOffered(mechs, "The server of %s offers only a login that sends the password itself (%s), which is refused. If you accept that over this checked connection, set plain_upstream: true for the domain.", u.domain.Name)
	}
	return "", nothingOffered(mechs, "The server of %s offers no login that otrproxy knows (offered: %s).", u.domain.Name)
}

// weaker is a login that would be worth less than one before.
func weaker(format string, args ...any) *loginError {
	return loginFailed("temporary-auth-failure", FailDowngrade, format, args...)
}

// stale is a login with keys of another password, or salt.
func stale(domain string) *loginError {
	le := loginFailed("temporary-auth-failure", FailSASL, "The server of %s has other keys of this account than it had when the account was enrolled with otrproxy; maybe the password was changed elsewhere.", domain)
	le.stale = true
	return le
}

// gone is a login with keys of a mechanism that the server has not got any more, or not as
// strong as another.
func gone(domain, mechanism string) *loginError {
	le := loginFailed("temporary-auth-failure", FailSASL, "The server of %s does not have %s any more as it had when the account was enrolled with otrproxy, and has others.", domain, mechanism)
	le.gone = mechanism
	return le
}

// words are a server's names of mechanisms, as part of a line of ours.
func words(mechs []string) string { return oneLine(strings.Join(mechs, ", ")) }

// strongest is the strength of the best of a server's mechanisms that we know.
func strongest(mechs []string) (best strength) {
	for _, name := range mechs {
		if mechanismOf(name) != nil {
			best = max(best, strengthOf(name))
		}
	}
	return best
}

func (c credentials) plain() (credentials, bool) { return c, true }

func (c credentials) prover(m *scramMechanism, b *scram.ChannelBinding, unseen bool) (prover, *loginError) {
	client, le := m.client(c)
	switch {
	case le != nil:
		return nil, le
	case b != nil:
		return client.NewConversationWithChannelBinding(*b), nil
	case unseen:
		return client.NewConversationAdvertisingChannelBinding(), nil
	}
	return client.NewConversation(), nil
}

// enrolment is what verifies logins with a password that the server has just confirmed,
// by the mechanism with which it did; nil for another one than SCRAM.
func (u *server) enrolment(c credentials, how string) *enrolment {
	m := mechanismOf(strings.Fields(how)[0])
	if m == nil || u.factors.Iters == 0 {
		return nil
	}
	k, client, ok := m.derived(c, []byte(u.factors.Salt), u.factors.Iters)
	if !ok {
		return nil
	}
	own := newOwnKeys(m, c, client)
	if own == nil {
		return nil
	}
	return &enrolment{m.name, []byte(k.Salt), k.Iters, k.StoredKey, k.ServerKey, own}
}

func (m *scramMechanism) client(c credentials) (*scram.Client, *loginError) {
	client, err := m.fcn.NewClient(c.user, c.password, "")
	if err != nil { // not every password passes SASLprep; servers that skip it accept it as it is
		client, err = m.fcn.NewClientUnprepped(c.user, c.password, "")
	}
	if err != nil {
		return nil, loginFailed("not-authorized", FailSASL, "The password cannot be used for a login.")
	}
	return client, nil
}

func (u *server) sasl(name string, initial []byte) *loginError {
	b := []byte("<auth xmlns='" + stanza.NSSASL + "' mechanism='" + name + "'>")
	b = base64.StdEncoding.AppendEncode(b, initial)
	if _, err := u.conn.Write(append(b, "</auth>"...)); err != nil {
		return &loginError{condition: "temporary-auth-failure", failure: lost(u.domain, err)}
	}
	return nil
}

// reply reads the server's next word in a login.
func (u *server) reply() (kind string, data []byte, le *loginError) {
	st, f := u.read()
	if f != nil {
		return "", nil, &loginError{condition: "temporary-auth-failure", failure: f}
	}
	root := st.Root()
	if string(root.NS()) != stanza.NSSASL {
		return "", nil, loginFailed("temporary-auth-failure", FailProtocol, "The server of %s broke off the login.", u.domain.Name)
	}
	kind = string(root.Local())
	switch kind {
	case "challenge", "success":
		text := strings.TrimSpace(root.Text())
		if text == "=" {
			text = ""
		}
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return "", nil, loginFailed("temporary-auth-failure", FailSASL, "The server of %s sent a malformed login message.", u.domain.Name)
		}
		return kind, data, nil
	case "failure":
		le := u.refusedLogin(root)
		le.refused = true
		return "", nil, le
	}
	return "", nil, loginFailed("temporary-auth-failure", FailProtocol, "The server of %s broke off the login.", u.domain.Name)
}

// otherwise are conditions that have nothing to do with how somebody logs in.
var otherwise = map[string]bool{"account-disabled": true, "credentials-expired": true, "temporary-auth-failure": true}

// plainWord is a condition's name as RFCs write them.
var plainWord = regexp.MustCompile(`^[a-z-]{1,40}$`)

// refusedLogin maps the server's failure to what the client can act on. Only a
// wrong password is not-authorized: some clients forget the password on it.
func (u *server) refusedLogin(root stanza.Element) *loginError {
	cond, text := "temporary-auth-failure", "" // what names no reason is no wrong password
	for c := range root.Children() {
		if string(c.Local()) == "text" {
			text = c.Text()
		} else {
			cond = string(c.Local())
		}
	}
	if text != "" {
		text = " (" + oneLine(text) + ")"
	}
	word := cond
	quote := func(le *loginError) *loginError {
		le.failure.Quoted, le.word = text, word
		return le
	}
	switch cond {
	case "not-authorized", "account-disabled", "credentials-expired", "invalid-authzid":
		return quote(loginFailed(cond, FailSASL, "The server of %s refused the name or the password%s.", u.domain.Name, text))
	case "mechanism-too-weak", "encryption-required":
		return quote(loginFailed("mechanism-too-weak", FailMechanism, "The server of %s wants a stronger login%s.", u.domain.Name, text))
	}
	if !plainWord.MatchString(cond) {
		cond = "undefined-condition"
	}
	return quote(loginFailed("temporary-auth-failure", FailSASL, "The server of %s could not log you in: %s%s.", u.domain.Name, cond, text))
}

func (u *server) respond(data string) *loginError {
	b := []byte("<response xmlns='" + stanza.NSSASL + "'>")
	b = base64.StdEncoding.AppendEncode(b, []byte(data))
	if _, err := u.conn.Write(append(b, "</response>"...)); err != nil {
		return &loginError{condition: "temporary-auth-failure", failure: lost(u.domain, err)}
	}
	return nil
}

// scram runs one SCRAM exchange (RFC 5802). It ends well only when the server has
// proved that it knows the password too.
func (u *server) scram(name string, conv prover, h hash.Hash, mechs, named []string) *loginError {
	malformed := func() *loginError {
		return loginFailed("temporary-auth-failure", FailSASL, "The server of %s sent a malformed login message; the login was broken off.", u.domain.Name)
	}
	first, err := conv.Step("")
	if err != nil {
		return malformed()
	}
	if le := u.sasl(name, []byte(first)); le != nil {
		return le
	}
	kind, data, le := u.reply()
	if le != nil {
		le.first = le.refused && le.failure.Cause == FailSASL && !otherwise[le.word]
		return le
	}
	if kind != "challenge" {
		return malformed()
	}
	challenge := string(data)
	for field := range strings.SplitSeq(challenge, ",") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "s":
			if salt, err := base64.StdEncoding.DecodeString(value); err == nil {
				u.factors.Salt = string(salt)
			}
		case "i":
			if n, err := strconv.Atoi(value); err != nil || n < 1 || n > maxIterations {
				return loginFailed("temporary-auth-failure", FailSASL, "The server of %s demands %s rounds of hashing for the login; at most %d are done.", u.domain.Name, rounds(value), maxIterations)
			} else {
				u.factors.Iters = n
			}
		case "h": // XEP-0474: what the server really offered
			want := downgradeHash(h, mechs, named)
			got, err := base64.StdEncoding.DecodeString(value)
			if err != nil || subtle.ConstantTimeCompare(got, want) != 1 {
				return loginFailed("temporary-auth-failure", FailSASL, "Somebody between here and the server of %s has changed the list of logins it offers; the login was broken off.", u.domain.Name)
			}
		}
	}
	answer, err := conv.Step(challenge)
	if errors.Is(err, errStale) {
		return stale(u.domain.Name)
	}
	if err != nil {
		return malformed()
	}
	if le := u.respond(answer); le != nil {
		return le
	}
	if kind, data, le = u.reply(); le != nil {
		return le
	}
	if _, err := conv.Step(string(data)); err != nil || !conv.Valid() {
		return loginFailed("temporary-auth-failure", FailSASL, "The server of %s could not prove that it knows your password; the login was broken off.", u.domain.Name)
	}
	if kind == "challenge" {
		if le := u.respond(""); le != nil {
			return le
		}
		if kind, _, le = u.reply(); le != nil {
			return le
		}
		if kind != "success" {
			return malformed()
		}
	}
	return nil
}

// rounds is how many a server demands, in words of ours where it is no number.
func rounds(value string) string {
	if value == "" || strings.Trim(value, "-0123456789") != "" {
		return "no number of"
	}
	return value[:min(len(value), 20)]
}

// downgradeHash is the hash of the offered mechanisms and bindings (XEP-0474
// section 3): each list sorted, joined by RS, the two separated by US.
func downgradeHash(h hash.Hash, mechs, named []string) []byte {
	m := slices.Sorted(slices.Values(mechs))
	s := []byte(strings.Join(m, "\x1e"))
	if len(named) > 0 {
		b := slices.Sorted(slices.Values(named))
		s = append(append(s, '\x1f'), strings.Join(b, "\x1e")...)
	}
	h.Reset()
	h.Write(s)
	return h.Sum(nil)
}

func (u *server) plain(c credentials) *loginError {
	if le := u.sasl("PLAIN", []byte("\x00"+c.user+"\x00"+c.password)); le != nil {
		return le
	}
	kind, _, le := u.reply()
	if le == nil && kind != "success" {
		le = loginFailed("temporary-auth-failure", FailSASL, "The server of %s sent a malformed login message; the login was broken off.", u.domain.Name)
	}
	return le
}

// parsePlain takes a client's PLAIN message apart (RFC 4616).
func parsePlain(b []byte) (authzid string, c credentials, ok bool) {
	part := bytes.Split(b, []byte{0})
	if len(part) != 3 || len(part[1]) == 0 || len(part[2]) == 0 {
		return "", c, false
	}
	return string(part[0]), credentials{string(part[1]), string(part[2])}, true
}
