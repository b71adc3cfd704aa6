package upstream

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"time"

	"golang.org/x/net/proxy"

	"otrproxy/config"
	"otrproxy/proxy/causes"
)

const dialLimit = 10 * time.Second // for one place, where the way is straight

// reach connects to the first place of a domain's server that answers, and has it used.
// The connection is closed where that fails. Account is whose connection it is, "" for
// nobody's.
func (sv *Servers) reach(ctx context.Context, d config.Domain, account string, use func(net.Conn, Target) *causes.Failure) *causes.Failure {
	places, f := sv.Targets(ctx, d)
	for _, t := range places {
		var conn net.Conn
		if conn, f = sv.DialTarget(ctx, d, account, t); f == nil {
			f = used(ctx, d, conn, t, use)
		}
		if f == nil {
			return nil
		}
		if f.Host = t.Host; t.Addr() == sv.config().Domains[d.Name].Connect {
			f.Host = "" // our own people did
		}
		switch {
		case late(ctx) && f.Cause != causes.FailTimeout:
			return tooLate(d, f)
		case f.Cause != causes.FailTCP && f.Cause != causes.FailDNS && f.Cause != causes.FailTLS:
			return f // what a server does wrong ends the search, and a person hears of it
		}
	}
	return f
}

// late reports whether there is no time left; a connection may have ended for that a
// moment before ctx does.
func late(ctx context.Context) bool {
	until, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(until)
}

// used has a connection used until the end of ctx, and closes it where that fails.
func used(ctx context.Context, d config.Domain, conn net.Conn, t Target, use func(net.Conn, Target) *causes.Failure) *causes.Failure {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	f := use(conn, t)
	if !stop() && f == nil {
		f = tooLate(d, ctx.Err())
	}
	if f != nil {
		conn.Close()
	}
	return f
}

func tooLate(d config.Domain, err error) *causes.Failure {
	by := ""
	if d.Via != "" {
		by = " through the SOCKS proxy at " + socksAt(d)
	}
	return causes.New(causes.FailTimeout, err, "The server of %s did not answer in time%s.", d.Name, by)
}

// socksAt is where the SOCKS proxy of a domain is.
func socksAt(d config.Domain) string { return strings.TrimPrefix(d.Via, "socks5://") }

// DialTarget connects to one place: straight, or through the domain's SOCKS proxy, and then in
// no other way.
func (sv *Servers) DialTarget(ctx context.Context, d config.Domain, account string, t Target) (net.Conn, *causes.Failure) {
	if d.Via != "" {
		return sv.through(ctx, d, account, t)
	}
	dctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := sv.dialer(dctx, "tcp", t.Addr())
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) {
			return nil, causes.New(causes.FailDNS, err, "The server of %s was not found: there is no host %s. Check the spelling of the domain, or set connect for it in the configuration.", d.Name, t.Host)
		}
		return nil, causes.New(causes.FailTCP, err, "The server of %s cannot be reached at %s: %v. It may be down, or this machine may be offline.", d.Name, t.Addr(), causes.Short(err))
	}
	if sv.listensAt(conn) {
		conn.Close()
		return nil, causes.New(causes.FailTCP, nil, "The name of the server of %s leads to %s, where otrproxy itself listens. Set \"connect\" for the domain in the configuration to where the server is.", d.Name, t.Addr())
	}
	return conn, nil
}

// through connects by way of a SOCKS proxy (RFC 1928). The name of the host goes to the
// proxy and is never looked up here.
//
// Each account has a user name and password of its own there (RFC 1929), by which Tor
// keeps the circuits of different accounts apart; they tell the proxy nothing.
func (sv *Servers) through(ctx context.Context, d config.Domain, account string, t Target) (net.Conn, *causes.Failure) {
	at := socksAt(d)
	dctx, cancel := context.WithTimeout(ctx, dialLimit)
	conn, err := sv.dialer(dctx, "tcp", at)
	cancel()
	if err != nil {
		return nil, causes.New(causes.FailVia, err, "The SOCKS proxy at %s, through which %s is to be reached, does not answer: %v. Start it (Tor, for example), or change via in the configuration; no other way was tried.", at, d.Name, causes.Short(err))
	}
	if sv.listensAt(conn) {
		conn.Close()
		return nil, causes.New(causes.FailVia, nil, "via of %s leads to %s, where otrproxy itself listens. Set it to where the SOCKS proxy is.", d.Name, at)
	}
	user, password := sv.circuit(account)
	socks, err := proxy.SOCKS5("tcp", at, &proxy.Auth{User: user, Password: password}, nil)
	if err == nil {
		_, err = socks.(interface {
			DialWithConn(context.Context, net.Conn, string, string) (net.Addr, error)
		}).DialWithConn(ctx, conn, "tcp", t.Addr())
	}
	switch said, answered := socksReply(err); {
	case err == nil:
		return conn, nil
	case answered:
		conn.Close()
		return nil, causes.New(causes.FailTCP, err, "The server of %s cannot be reached at %s through the SOCKS proxy at %s: %s.%s", d.Name, t.Addr(), at, said, beyondSRV(d))
	default: // another place would fare no better
		conn.Close()
		return nil, causes.New(causes.FailVia, err, "What listens at %s, through which %s is to be reached, is no SOCKS proxy that can be used: %s. Start one (Tor, for example), or change via in the configuration; no other way was tried.", at, d.Name, said)
	}
}

// beyondSRV is what a person may do where DNS could not be asked for the right place.
func beyondSRV(d config.Domain) string {
	if d.Connect != "" || onion(d.Name) {
		return ""
	}
	return " The server may be on another host than " + d.Name + ", which cannot be asked for through the proxy: set connect for the domain in the configuration."
}

// socksReply is what a SOCKS proxy says went wrong (RFC 1928 section 6), or what is wrong
// with it where it answered something else.
func socksReply(err error) (said string, answered bool) {
	if err == nil {
		return "", false
	}
	var op *net.OpError
	for errors.As(err, &op) && op.Err != nil { // the library's, and in it the network's
		err = op.Err
	}
	said, answered = strings.CutPrefix(err.Error(), "unknown error ")
	if known := socksErrors[said]; known != "" {
		said = known
	}
	return said, answered
}

// socksErrors are what a person may not understand, or only Tor says, with its option
// ExtendedErrors.
var socksErrors = map[string]string{
	"EOF":                          "it closed the connection",
	"TTL expired":                  "it found no way there in time (TTL expired)",
	"general SOCKS server failure": "it failed, without saying why (general SOCKS server failure)",
	"unknown code: 240":            "there is no such onion service",
	"unknown code: 241":            "the descriptor of the onion service is invalid",
	"unknown code: 242":            "the onion service could not be introduced to",
	"unknown code: 243":            "the onion service could not be met",
	"unknown code: 244":            "the onion service wants client authorization",
	"unknown code: 245":            "the client authorization for the onion service is wrong",
	"unknown code: 246":            "this is no valid onion address",
	"unknown code: 247":            "the onion service could not be introduced to in time",
}

// circuit is an account's name and password towards a SOCKS proxy: the same as long as
// otrproxy runs, and nobody's twice for what belongs to no account.
func (sv *Servers) circuit(account string) (user, password string) {
	if account == "" {
		account = "\x00" + rand.Text()
	}
	m := hmac.New(sha256.New, sv.circuits[:])
	m.Write([]byte(account))
	sum := m.Sum(nil)
	return hex.EncodeToString(sum[:12]), hex.EncodeToString(sum[12:24])
}

// listensAt reports whether a connection leads back to this very program: it would
// connect to itself without end.
func (sv *Servers) listensAt(conn net.Conn) bool {
	there, ok := conn.RemoteAddr().(*net.TCPAddr)
	here, ok2 := conn.LocalAddr().(*net.TCPAddr)
	if !ok || !ok2 {
		return false
	}
	for _, a := range sv.Ours() {
		if own, ok := a.(*net.TCPAddr); ok && own.Port == there.Port && (own.IP.Equal(there.IP) || own.IP.IsUnspecified() && there.IP.Equal(here.IP)) {
			return true
		}
	}
	return false
}
