package sasl

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

	"otrproxy/proxy/causes"
	"otrproxy/proxy/upstream"
	"otrproxy/stanza"
)

// Credentials live for one login.
type Credentials struct{ User, Password string }

// A Mechanism is one of SCRAM's, without its binding.
type Mechanism struct {
	Name      string
	Generator scram.HashGeneratorFcn
	new       func() hash.Hash
}

// mechanisms are the ways to log in upstream, best first.
var mechanisms = []*Mechanism{
	{"SCRAM-SHA-512", scram.SHA512, sha512.New},
	{"SCRAM-SHA-256", scram.SHA256, sha256.New},
	{"SCRAM-SHA-1", scram.SHA1, sha1.New},
}

// maxIterations caps the work a server may make us do for one login.
const maxIterations = 1_000_000

// A Server is the server's side of a login, over a connection that is secured and checked.
type Server struct {
	*upstream.Leg
	factors scram.KeyFactors // by which the last login was salted
}

// Offered lists the SASL mechanisms and channel binding types (XEP-0440) in a
// server's features.
func (u *Server) Offered() (mechs, bindings []string) {
	root := u.Features.Root()
	if m, ok := root.Child(stanza.NSSASL, "mechanisms"); ok {
		for c := range m.Children() {
			if c.Is(stanza.NSSASL, "mechanism") {
				mechs = append(mechs, strings.TrimSpace(c.Text()))
			}
		}
	}
	if b, ok := root.Child(upstream.NSChannelBinding, "sasl-channel-binding"); ok {
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
func (u *Server) bindings(named []string) (out []scram.ChannelBinding) {
	for _, b := range channelBindings(u.Conn.ConnectionState()) {
		if len(named) == 0 || slices.Contains(named, string(b.Type)) {
			out = append(out, b)
		}
	}
	return out
}

// Login authenticates with the strongest mechanism both sides have, and returns
// it with the channel binding used. Nothing weaker is tried than an earlier login was.
//
// A server that does not name its bindings (XEP-0440) may offer -PLUS with one
// that TLS 1.3 has not got; ejabberd 23.01 does. It says so in answer to our first
// message, before any proof of the password, and then the next binding is tried,
// and at last none; unless this server has bound a login before, for then somebody else
// may be answering.
func (u *Server) Login(s Secret, least Strength) (how string, le *LoginError) {
	mechs, named := u.Offered()
	anyPlus := slices.ContainsFunc(mechs, func(m string) bool { return strings.HasSuffix(m, "-PLUS") })
	tried := false
	for _, m := range mechanisms {
		if tried { // the hash makes no difference to the binding
			break
		}
		if !slices.Contains(mechs, m.Name+"-PLUS") {
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
			le = u.scram(m.Name+"-PLUS", conv, m.new(), mechs, named)
			if le == nil || !le.first || len(named) > 0 {
				return m.Name + "-PLUS " + string(b.Type), le
			}
		}
	}
	if k, ok := s.(Shown); ok && !tried {
		name, best := k.Keys.Mechanism, strongest(mechs)
		if best >= least && (least == byBinding || !slices.Contains(mechs, name)) && !slices.Contains(mechs, name+"-PLUS") {
			return "", gone(u.Domain.Name, name)
		}
	}
	if least == byBinding {
		return "", weaker("The server of %s has tied logins to the encrypted connection before and does not now, which may mean that somebody is in between; the login was broken off.", u.Domain.Name)
	}
	for _, m := range mechanisms {
		if !slices.Contains(mechs, m.Name) {
			continue
		}
		// "y": a server that does have -PLUS finds out that it was hidden from us. Where there
		// is -PLUS, it is not with a binding that we have.
		conv, le := s.prover(m, nil, !anyPlus)
		if le != nil {
			return "", le
		}
		if conv != nil {
			return m.Name, u.scram(m.Name, conv, m.new(), mechs, named)
		}
	}
	if least == byProof {
		return "", weaker("The server of %s has let you prove your password before and wants to be given it now, which may mean that it was broken into; the login was broken off.", u.Domain.Name)
	}
	if slices.Contains(mechs, "PLAIN") {
		if c, ok := s.Plain(); ok && u.Domain.PlainUpstream {
			return "PLAIN", u.plain(c)
		}
		return "", nothingOffered(mechs, "The server of %s offers only a login that sends the password itself (%s), which is refused. If you accept that over this checked connection, set plain_upstream: true for the domain.", u.Domain.Name)
	}
	return "", nothingOffered(mechs, "The server of %s offers no login that otrproxy knows (offered: %s).", u.Domain.Name)
}

// words are a server's names of mechanisms, as part of a line of ours.
func words(mechs []string) string { return causes.OneLine(strings.Join(mechs, ", ")) }

// Plain is the name and password.
func (c Credentials) Plain() (Credentials, bool) { return c, true }

func (c Credentials) prover(m *Mechanism, b *scram.ChannelBinding, unseen bool) (prover, *LoginError) {
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

// Enrolment is what verifies logins with a password that the server has just confirmed,
// by the mechanism with which it did; nil for another one than SCRAM.
func (u *Server) Enrolment(c Credentials, how string) *Enrolment {
	m := MechanismOf(strings.Fields(how)[0])
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
	return &Enrolment{m.Name, []byte(k.Salt), k.Iters, k.StoredKey, k.ServerKey, own}
}

func (m *Mechanism) client(c Credentials) (*scram.Client, *LoginError) {
	client, err := m.Generator.NewClient(c.User, c.Password, "")
	if err != nil { // not every password passes SASLprep; servers that skip it accept it as it is
		client, err = m.Generator.NewClientUnprepped(c.User, c.Password, "")
	}
	if err != nil {
		return nil, loginFailed("not-authorized", causes.FailSASL, "The password cannot be used for a login.")
	}
	return client, nil
}

func (u *Server) sasl(name string, initial []byte) *LoginError {
	b := []byte("<auth xmlns='" + stanza.NSSASL + "' mechanism='" + name + "'>")
	b = base64.StdEncoding.AppendEncode(b, initial)
	if _, err := u.Conn.Write(append(b, "</auth>"...)); err != nil {
		return &LoginError{Condition: "temporary-auth-failure", Failure: upstream.Lost(u.Domain, err)}
	}
	return nil
}

// reply reads the server's next word in a login.
func (u *Server) reply() (kind string, data []byte, le *LoginError) {
	st, f := u.Next()
	if f != nil {
		return "", nil, &LoginError{Condition: "temporary-auth-failure", Failure: f}
	}
	root := st.Root()
	if string(root.NS()) != stanza.NSSASL {
		return "", nil, loginFailed("temporary-auth-failure", causes.FailProtocol, "The server of %s broke off the login.", u.Domain.Name)
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
			return "", nil, loginFailed("temporary-auth-failure", causes.FailSASL, "The server of %s sent a malformed login message.", u.Domain.Name)
		}
		return kind, data, nil
	case "failure":
		le := u.refusedLogin(root)
		le.Refused = true
		return "", nil, le
	}
	return "", nil, loginFailed("temporary-auth-failure", causes.FailProtocol, "The server of %s broke off the login.", u.Domain.Name)
}

// otherwise are conditions that have nothing to do with how somebody logs in.
var otherwise = map[string]bool{"account-disabled": true, "credentials-expired": true, "temporary-auth-failure": true}

// plainWord is a condition's name as RFCs write them.
var plainWord = regexp.MustCompile(`^[a-z-]{1,40}$`)

func (u *Server) respond(data string) *LoginError {
	b := []byte("<response xmlns='" + stanza.NSSASL + "'>")
	b = base64.StdEncoding.AppendEncode(b, []byte(data))
	if _, err := u.Conn.Write(append(b, "</response>"...)); err != nil {
		return &LoginError{Condition: "temporary-auth-failure", Failure: upstream.Lost(u.Domain, err)}
	}
	return nil
}

// scram runs one SCRAM exchange (RFC 5802). It ends well only when the server has
// proved that it knows the password too.
func (u *Server) scram(name string, conv prover, h hash.Hash, mechs, named []string) *LoginError {
	malformed := func() *LoginError {
		return loginFailed("temporary-auth-failure", causes.FailSASL, "The server of %s sent a malformed login message; the login was broken off.", u.Domain.Name)
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
		le.first = le.Refused && le.Failure.Cause == causes.FailSASL && !otherwise[le.Word]
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
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > maxIterations {
				return loginFailed("temporary-auth-failure", causes.FailSASL, "The server of %s demands %s rounds of hashing for the login; at most %d are done.", u.Domain.Name, rounds(value), maxIterations)
			}
			u.factors.Iters = n
		case "h": // XEP-0474: what the server really offered
			want := downgradeHash(h, mechs, named)
			got, err := base64.StdEncoding.DecodeString(value)
			if err != nil || subtle.ConstantTimeCompare(got, want) != 1 {
				return loginFailed("temporary-auth-failure", causes.FailSASL, "Somebody between here and the server of %s has changed the list of logins it offers; the login was broken off.", u.Domain.Name)
			}
		}
	}
	answer, err := conv.Step(challenge)
	if errors.Is(err, errStale) {
		return stale(u.Domain.Name)
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
		return loginFailed("temporary-auth-failure", causes.FailSASL, "The server of %s could not prove that it knows your password; the login was broken off.", u.Domain.Name)
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

func (u *Server) plain(c Credentials) *LoginError {
	if le := u.sasl("PLAIN", []byte("\x00"+c.User+"\x00"+c.Password)); le != nil {
		return le
	}
	kind, _, le := u.reply()
	if le == nil && kind != "success" {
		le = loginFailed("temporary-auth-failure", causes.FailSASL, "The server of %s sent a malformed login message; the login was broken off.", u.Domain.Name)
	}
	return le
}

// ParsePlain takes a client's PLAIN message apart (RFC 4616).
func ParsePlain(b []byte) (authzid string, c Credentials, ok bool) {
	part := bytes.Split(b, []byte{0})
	if len(part) != 3 || len(part[1]) == 0 || len(part[2]) == 0 {
		return "", c, false
	}
	return string(part[0]), Credentials{string(part[1]), string(part[2])}, true
}
