// Package proxy is the proxy itself: its listeners, the negotiation of both legs
// of a session, the checked connection to the server, and the relay between them.
//
// The way of a byte, in the order of the files:
//
//	gate.go       lets a client in, or says why not
//	entry.go      accepts a client and tells by its first byte how it speaks: as a stream,
//	              over a WebSocket (websocket.go), or by SOCKS, which leads here (socks.go)
//	negotiate.go  finds the domain, has the server dialled, takes the credentials
//	locate.go     finds where the server is; dial.go, the way there, straight or through a SOCKS proxy
//	upstream.go   secures the connection to it; pins.go decides whether it is the right one,
//	              by DNS where that is asked (dane.go, dnssec.go); renewal.go, how that changes
//	scram.go      takes the login of an account that is enrolled (enrol.go), without its password
//	login.go      logs in there with the strongest mechanism both have
//	session.go    relays, one reader (wire.go) and one writer (leg.go) for each leg; acks.go knows what the server has taken
//	outgoing.go   what a client's message may do; guard.go, its presence and requests
//	incoming.go   what a server's stanza may do; copies.go, a carbon or an archive's result; asked.go, an answer
package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"otrproxy/config"
	"otrproxy/proxy/control"
)

// Options are what a Proxy needs besides its configuration.
type Options struct {
	Version  string
	Log      *slog.Logger   // nil discards
	Roots    *x509.CertPool // CAs for trust "ca" and first use; nil for the system's
	Resolver *net.Resolver  // nil for the system's
	DNSSEC   string         // host:port of a DNS server on this machine that validates; "" for what the system has

	Link     func() string // mints the address of the web page; nil for none
	Notifier Notifier      // runs the command of "notify"; nil for this process
	// CommandAtStart says that this process starts no programs later: without a Notifier, a
	// command of "notify" that a reload brings begins with the next start.
	CommandAtStart bool
	Confinement    func() *control.Confinement // what the process has taken from itself; nil for nothing
	Welcome        func() net.Addr             // where the page for devices is served; nil for nowhere

	// The network; nil for this machine's.
	Listen func(network, addr string) (net.Listener, error)
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

// network is the way to servers.
func (o *Options) network() Network {
	return Network{Roots: o.Roots, Resolver: o.Resolver, DNSSEC: o.DNSSEC, Dial: o.Dial}
}

// A Proxy serves clients until it is shut down.
type Proxy struct {
	cfg    atomic.Pointer[config.Config]
	opt    Options
	log    *journal
	dir    *State
	disk   disk
	ctx    context.Context // ends with the proxy
	cancel context.CancelFunc
	memory memory

	// The owners of what the proxy knows, each with a lock of its own.
	metrics  *metrics
	bell     *bell
	machine  *machine
	accounts *accountSet
	servers  *servers
	logins   *logins
	relay    *relay
	door     *door
	desk     *desk
}

// New opens the state directory and prepares a proxy.
func New(cfg *config.Config, opt Options) (*Proxy, error) {
	if err := Supported(cfg); err != nil {
		return nil, err
	}
	dir, err := OpenState(cfg.State)
	if err != nil {
		return nil, err
	}
	p := &Proxy{opt: opt, dir: dir}
	p.cfg.Store(cfg)
	p.memory.limit = func() int { return p.Config().Limits.Memory }
	p.log = newJournal(opt.Log, func() bool { return p.Config().Log.JIDs })
	p.ctx, p.cancel = context.WithCancel(context.Background())
	fail := func(err error) (*Proxy, error) {
		p.cancel()
		dir.Close()
		return nil, err
	}
	if err := dir.upgrade(p.log.Logger); err != nil {
		return fail(err)
	}
	pins, err := openPins(cfg.State)
	if err != nil {
		return fail(err)
	}
	v, err := openVault(cfg.State)
	if err != nil {
		return fail(err)
	}
	if v.locked() {
		p.log.Warn("the private keys are locked; nobody can log in before: otrproxy key unlock")
	}
	ca, made, err := openAuthority(cfg.State, slices.Collect(maps.Keys(cfg.Domains)), cfg.Names)
	if err != nil {
		return fail(err)
	}
	switch sum := fmt.Sprintf("%X", sha256.Sum256(ca.cert.Raw)); {
	case made && ca.narrowed:
		p.log.Warn("the local CA could sign for any domain; now that domains are listed, a new one was made that can sign for these only. Clients that trusted the old one must trust the new one", "file", cfg.State+"/ca.pem", "sha256", sum)
	case made:
		p.log.Info("a local CA was made; clients that check certificates must trust it", "file", cfg.State+"/ca.pem", "sha256", sum)
	}
	p.furnish(pins, v, ca)
	go p.bell.work()
	return p, nil
}

// furnish makes the owners, and has them know of each other what they need.
func (p *Proxy) furnish(pins *pinStore, v *vault, ca *authority) {
	dir := p.Config().State
	p.metrics = newMetrics(p.opt.Version, Events(), p.now)
	p.bell = newBell(p.ctx, p.Config, p.log, p.metrics, p.opt.Notifier)
	p.machine = &machine{config: p.Config, ca: ca, own: machineAddresses()}
	p.accounts = newAccountSet(p.Config, p.log, dir, v)
	p.servers = newServers(p.Config, p.log, pins, p.opt.network())
	p.logins = newLogins(p.Config, p.log, dir, v)
	p.relay = newRelay(p.ctx, p.Config, p.log, dir)
	p.door = newDoor(p.ctx, p.Config, p.log, p.opt.Listen, newGate(p.log, p.memory.tight, p.metrics.refused))
	p.desk = &desk{config: p.Config, log: p.log, version: p.opt.Version, started: time.Now(), accounts: p.accounts, servers: p.servers, logins: p.logins, machine: p.machine, relay: p.relay, bell: p.bell, vault: v,
		addrs: p.Addrs, load: p.Reload, webLink: p.opt.Link, welcome: p.opt.Welcome, confinement: p.opt.Confinement}

	p.accounts.bell, p.accounts.full, p.accounts.handshake, p.accounts.refused = p.bell, p.memory.tight, p.metrics.handshake, p.metrics.refused
	p.accounts.opens, p.accounts.forgotten, p.accounts.sealLogin = p.logins.offers.forget, p.logins.passwords.forget, p.logins.sealLogin
	p.accounts.maker.Rested = debug.FreeOSMemory

	p.servers.localCA, p.servers.ours, p.servers.bell, p.servers.failed, p.servers.tellAdmins = ca.cert, p.Addrs, p.bell, p.metrics.upstreamFailed, p.relay.tellAdmins
	p.servers.household = func(domain string) bool { return len(p.accounts.kin.at(dir, domain)) > 0 }

	p.logins.servers, p.logins.kin, p.logins.bell, p.logins.spawn, p.logins.onceMade = p.servers, &p.accounts.kin, p.bell, p.relay.spawn, p.accounts.onceMade

	p.relay.accounts, p.relay.logins, p.relay.servers, p.relay.metrics, p.relay.bell, p.relay.version = p.accounts, p.logins, p.servers, p.metrics, p.bell, p.opt.Version
	p.relay.slowed = func() { p.door.gate.refusedFor(RefusedRate) }
	p.relay.commands = p.desk.table()

	n := &negotiator{config: p.Config, log: p.log, ctx: p.ctx, relay: p.relay, servers: p.servers, logins: p.logins, accounts: p.accounts, machine: p.machine, gate: p.door.gate, metrics: p.metrics}
	p.door.machine, p.door.serves, p.door.begin, p.door.done = p.machine, p.servers.serves, p.relay.begin, p.relay.running.Done
	p.door.answer = func(c *caller) func() {
		if s := n.negotiate(c); s != nil {
			return s.run
		}
		return nil
	}
}

// Supported refuses what the configuration may say and this version cannot do,
// rather than run without it.
func Supported(cfg *config.Config) error {
	if cfg.Web != "" && !config.Loopback(cfg.Web) {
		return fmt.Errorf("web: %s can be reached from other machines, and the page is for this one; write 127.0.0.1:PORT, and reach it from elsewhere by: ssh -L PORT:127.0.0.1:PORT", cfg.Web)
	}
	return nil
}

// Config is the configuration in force.
func (p *Proxy) Config() *config.Config { return p.cfg.Load() }

// Reload puts a new configuration in force for what happens from now on. What
// only a start can change is named in the log.
func (p *Proxy) Reload(cfg *config.Config) error {
	if err := Supported(cfg); err != nil {
		return err
	}
	old := p.cfg.Load()
	if !slices.Equal(old.Listen, cfg.Listen) || old.State != cfg.State || old.Metrics != cfg.Metrics || old.Web != cfg.Web || old.Confine != cfg.Confine || old.Onboarding != cfg.Onboarding {
		p.log.Warn("listen, state, metrics, web, confine and onboarding change with the next start only")
		kept := *cfg
		kept.Listen, kept.State, kept.Metrics, kept.Web, kept.Confine, kept.Onboarding = old.Listen, old.State, old.Metrics, old.Web, old.Confine, old.Onboarding
		cfg = &kept
	}
	if len(cfg.Notify.Command) > 0 && p.opt.CommandAtStart && p.opt.Notifier == nil {
		p.log.Warn("the command of notify is new, and begins with the next start: this process may start no programs")
		kept := *cfg
		kept.Notify = config.Notify{}
		cfg = &kept
	}
	switch domains := slices.Collect(maps.Keys(cfg.Domains)); {
	case p.machine.ca.covers(domains, cfg.Names):
	case !p.machine.ca.constrained():
		p.log.Warn("the local CA may sign for any domain, though domains are listed; the next start makes one that can sign for these only, and clients must trust that one then")
	default:
		p.log.Warn("the local CA may not sign for a domain or a name of this machine that is new in the configuration; clients that check certificates can use it after the next start, which makes a new CA")
	}
	p.cfg.Store(cfg)
	select {
	case p.relay.reloaded <- struct{}{}:
	default:
	}
	p.servers.forgive()
	if p.opt.Notifier != nil {
		p.opt.Notifier.Reload()
	}
	p.log.Info("configuration re-read", "file", cfg.File)
	return nil
}

// Doctor examines a name without a running proxy. Nothing is written.
func Doctor(ctx context.Context, cfg *config.Config, opt Options, name string) (control.Reply, error) {
	return examineFrom(ctx, cfg, newJournal(opt.Log, func() bool { return cfg.Log.JIDs }), opt.network(), name)
}

// Words is the table of commands without a proxy: names, usage and help.
func Words() control.Table { return wordTable() }

// Listen opens the configured addresses.
func (p *Proxy) Listen() error { return p.door.open() }

// Addrs are the addresses listened on.
func (p *Proxy) Addrs() []net.Addr { return p.door.Addrs() }

// Serve accepts clients until Shutdown.
func (p *Proxy) Serve() {
	p.relay.spawn(p.relay.askAll)
	p.door.serve()
	p.relay.running.Wait()
}

// Shutdown ends all conversations politely, gives back the messages that wait,
// tells the clients, and lets go of the state directory.
func (p *Proxy) Shutdown(within time.Duration) {
	p.door.closeListeners()
	sessions := p.relay.close()
	accounts := p.accounts.opened()
	p.accounts.maker.Close()
	for _, a := range accounts {
		<-a.Ready() // a key that is just being written
		a.Close()
	}
	p.relay.end(sessions, within)
	p.cancel()
	p.door.gate.close()
	p.relay.running.Wait()
	p.door.calm.end()
	p.bell.close()
	for _, a := range accounts {
		if n := a.Owed(); n > 0 {
			p.log.Error("messages that were not sent could not be given back: no client is connected", "account", p.log.name(a.JID()), "messages", n)
		}
	}
	for _, a := range accounts {
		a.Saved() // what has come after Close
	}
	p.door.peers.close()
	p.dir.Close()
}

// CA is the certificate of the local CA.
func (p *Proxy) CA() *x509.Certificate { return p.machine.ca.cert }

// Names are the names and addresses by which devices reach this machine.
func (p *Proxy) Names() []string { return p.machine.names() }

// Certificate is what this machine shows of itself, not of a domain, to who has come to one
// of its addresses.
func (p *Proxy) Certificate(at net.Addr) (*tls.Certificate, error) {
	return p.machine.leaf("localhost", at)
}

// Reached are the host:port by which devices reach something that listens at an address.
func (p *Proxy) Reached(at net.Addr) []string { return p.machine.reached(at) }

// Pages are the addresses of the page for devices.
func (p *Proxy) Pages() []string { return p.desk.pages() }

// Commands is the table of the running proxy.
func (p *Proxy) Commands() control.Table { return p.relay.commands }

// Connected is how many clients are logged in.
func (p *Proxy) Connected() int { return p.relay.connected() }

// Watch is told of changes, one signal for many; stop ends it.
func (p *Proxy) Watch() (c <-chan struct{}, stop func()) { return p.bell.watch() }

// Metrics serves the figures in Prometheus' format, and whether the proxy is well.
func (p *Proxy) Metrics() http.Handler { return p.metrics.handler(p.ills) }

// ills are what is wrong now.
func (p *Proxy) ills() (out []illness) {
	if p.relay.isClosing() || !p.door.accepting() {
		out = append(out, illListening)
	}
	if !p.disk.writable(p.dir.Dir) {
		out = append(out, illState)
	}
	if p.accounts.vault.locked() {
		out = append(out, illLocked)
	}
	return out
}

// now is how things stand, for the figures.
func (p *Proxy) now() snapshot {
	s := snapshot{started: p.desk.started, caEnd: p.machine.ca.cert.NotAfter, certEnd: p.servers.soonestEnd(), sessions: p.relay.connected(), sessionLimit: p.Config().Limits.Sessions, accounts: p.accounts.keeps.all(), ills: p.ills()}
	s.oldest, s.waits = p.desk.waits()
	s.kept, s.spared = p.desk.kept("")
	return s
}
