// Package proxy is the wiring: it makes the owners of what the proxy knows, tells each of the
// others, starts and stops them. What they do stands in their own rooms, in the order of a byte's
// way:
//
//	listen     lets a client in, and tells by its first byte how it speaks
//	localca    shows it a certificate
//	negotiate  finds the domain, has the server dialled, takes the credentials
//	upstream   finds, reaches and secures the server, and decides whether it is the right one
//	sasl       logs in there, and knows whose password it is
//	accounts   opens the account
//	relay      passes stanzas, one reader and one writer (leg) for each side
//	filter     says what may pass; otrlayer encrypts
//
// Beside them are state (the directory), control and control/commands (what people can ask),
// metrics, notify and journal.
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
	"otrproxy/proxy/accounts"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/control"
	"otrproxy/proxy/control/commands"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/listen"
	"otrproxy/proxy/localca"
	"otrproxy/proxy/metrics"
	"otrproxy/proxy/negotiate"
	"otrproxy/proxy/notify"
	"otrproxy/proxy/relay"
	"otrproxy/proxy/sasl"
	"otrproxy/proxy/state"
	"otrproxy/proxy/upstream"
)

// Options are what a Proxy needs besides its configuration.
type Options struct {
	Version  string
	Log      *slog.Logger   // nil discards
	Roots    *x509.CertPool // CAs for trust "ca" and first use; nil for the system's
	Resolver *net.Resolver  // nil for the system's
	DNSSEC   string         // host:port of a DNS server on this machine that validates; "" for what the system has

	Link     func() string   // mints the address of the web page; nil for none
	Notifier notify.Notifier // runs the command of "notify"; nil for this process
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
func (o *Options) network() upstream.Network {
	return upstream.Network{Roots: o.Roots, Resolver: o.Resolver, DNSSEC: o.DNSSEC, Dial: o.Dial}
}

// A Proxy serves clients until it is shut down.
type Proxy struct {
	cfg    atomic.Pointer[config.Config]
	opt    Options
	log    *journal.Journal
	dir    *state.State
	disk   state.Disk
	ctx    context.Context // ends with the proxy
	cancel context.CancelFunc
	memory listen.Memory

	// The owners of what the proxy knows, each with a lock of its own.
	metrics  *metrics.Metrics
	bell     *notify.Bell
	machine  *localca.Machine
	accounts *accounts.Set
	servers  *upstream.Servers
	logins   *sasl.Logins
	relay    *relay.Relay
	door     *listen.Door
	desk     *commands.Desk
}

// New opens the state directory and prepares a proxy.
func New(cfg *config.Config, opt Options) (*Proxy, error) {
	if err := Supported(cfg); err != nil {
		return nil, err
	}
	dir, err := state.OpenState(cfg.State)
	if err != nil {
		return nil, err
	}
	p := &Proxy{opt: opt, dir: dir}
	p.cfg.Store(cfg)
	p.memory.Limit = func() int { return p.Config().Limits.Memory }
	p.log = journal.New(opt.Log, func() bool { return p.Config().Log.JIDs })
	p.ctx, p.cancel = context.WithCancel(context.Background())
	fail := func(err error) (*Proxy, error) {
		p.cancel()
		dir.Close()
		return nil, err
	}
	if err := dir.Upgrade(p.log.Logger); err != nil {
		return fail(err)
	}
	pins, err := upstream.OpenPins(cfg.State)
	if err != nil {
		return fail(err)
	}
	v, err := state.OpenVault(cfg.State)
	if err != nil {
		return fail(err)
	}
	if v.Locked() {
		p.log.Warn("the private keys are locked; nobody can log in before: otrproxy key unlock")
	}
	ca, made, err := localca.Open(cfg.State, slices.Collect(maps.Keys(cfg.Domains)), cfg.Names)
	if err != nil {
		return fail(err)
	}
	switch sum := fmt.Sprintf("%X", sha256.Sum256(ca.Cert.Raw)); {
	case made && ca.Narrowed:
		p.log.Warn("the local CA could sign for any domain; now that domains are listed, a new one was made that can sign for these only. Clients that trusted the old one must trust the new one", "file", cfg.State+"/ca.pem", "sha256", sum)
	case made:
		p.log.Info("a local CA was made; clients that check certificates must trust it", "file", cfg.State+"/ca.pem", "sha256", sum)
	}
	p.furnish(pins, v, ca)
	go p.bell.Work()
	return p, nil
}

// furnish makes the owners, and has them know of each other what they need.
func (p *Proxy) furnish(pins *upstream.Pins, v *state.Vault, ca *localca.Authority) {
	dir := p.Config().State
	p.metrics = metrics.New(p.opt.Version, notify.Events(), p.now)
	p.bell = notify.New(p.ctx, p.Config, p.log, p.metrics, p.opt.Notifier)
	p.machine = &localca.Machine{Config: p.Config, CA: ca, Own: localca.MachineAddresses()}
	p.accounts = accounts.New(p.Config, p.log, dir, v)
	p.servers = upstream.New(p.Config, p.log, pins, p.opt.network())
	p.logins = sasl.New(p.Config, p.log, dir, v)
	p.relay = relay.New(p.ctx, p.Config, p.log, dir, p.opt.Version)
	p.door = listen.New(p.ctx, p.Config, p.log, p.opt.Listen, listen.NewGate(p.log, p.memory.Tight, p.metrics.Refused))
	p.desk = &commands.Desk{Config: p.Config, Log: p.log, Version: p.opt.Version, Started: time.Now(), Accounts: p.accounts, Servers: p.servers, Logins: p.logins, Machine: p.machine, Relay: p.relay, Bell: p.bell, Vault: v,
		Addrs: p.Addrs, Load: p.Reload, WebLink: p.opt.Link, Welcome: p.opt.Welcome, Confinement: p.opt.Confinement}

	p.accounts.Bell, p.accounts.Full, p.accounts.Handshake, p.accounts.Refused = p.bell, p.memory.Tight, p.metrics.Handshake, p.metrics.Refused
	p.accounts.Opens, p.accounts.Forgotten, p.accounts.SealLogin = p.logins.Offers.Forget, p.logins.Passwords.Forget, p.logins.SealLogin
	p.accounts.Maker.Rested = debug.FreeOSMemory

	p.servers.LocalCA, p.servers.Ours, p.servers.Bell, p.servers.Failed, p.servers.TellAdmins = ca.Cert, p.Addrs, p.bell, p.metrics.UpstreamFailed, p.relay.TellAdmins
	p.servers.Household = func(domain string) bool { return len(p.accounts.Kept.At(dir, domain)) > 0 }

	p.logins.Servers, p.logins.Accounts, p.logins.Bell, p.logins.Spawn, p.logins.OnceMade = p.servers, &p.accounts.Kept, p.bell, p.relay.Spawn, p.accounts.OnceMade

	p.relay.Accounts, p.relay.Logins, p.relay.Servers, p.relay.Metrics, p.relay.Bell = p.accounts, p.logins, p.servers, p.metrics, p.bell
	p.relay.Slowed = func() { p.door.Gate.Count(causes.RefusedRate) }
	p.relay.Commands = p.desk.Table()

	n := &negotiate.Negotiator{Config: p.Config, Log: p.log, Context: p.ctx, Relay: p.relay, Servers: p.servers, Logins: p.logins, Accounts: p.accounts, Machine: p.machine, Gate: p.door.Gate, Metrics: p.metrics}
	p.door.Machine, p.door.Serves, p.door.Begin, p.door.Done = p.machine, p.servers.Serves, p.relay.Begin, p.relay.Running.Done
	p.door.Answer = func(c *listen.Caller) func() {
		if s := n.Negotiate(c); s != nil {
			return s.Run
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
	case p.machine.CA.Covers(domains, cfg.Names):
	case !p.machine.CA.Constrained():
		p.log.Warn("the local CA may sign for any domain, though domains are listed; the next start makes one that can sign for these only, and clients must trust that one then")
	default:
		p.log.Warn("the local CA may not sign for a domain or a name of this machine that is new in the configuration; clients that check certificates can use it after the next start, which makes a new CA")
	}
	p.cfg.Store(cfg)
	select {
	case p.relay.Reloaded <- struct{}{}:
	default:
	}
	p.servers.Forgive()
	if p.opt.Notifier != nil {
		p.opt.Notifier.Reload()
	}
	p.log.Info("configuration re-read", "file", cfg.File)
	return nil
}

// Doctor examines a name without a running proxy. Nothing is written.
func Doctor(ctx context.Context, cfg *config.Config, opt Options, name string) (control.Reply, error) {
	return commands.Doctor(ctx, cfg, journal.New(opt.Log, func() bool { return cfg.Log.JIDs }), opt.network(), name)
}

// Listen opens the configured addresses.
func (p *Proxy) Listen() error { return p.door.Open() }

// Addrs are the addresses listened on.
func (p *Proxy) Addrs() []net.Addr { return p.door.Addrs() }

// Serve accepts clients until Shutdown.
func (p *Proxy) Serve() {
	p.relay.Spawn(p.relay.AskAll)
	p.door.Serve()
	p.relay.Running.Wait()
}

// Shutdown ends all conversations politely, gives back the messages that wait,
// tells the clients, and lets go of the state directory.
func (p *Proxy) Shutdown(within time.Duration) {
	p.door.CloseListeners()
	sessions := p.relay.Close()
	accounts := p.accounts.Opened()
	p.accounts.Maker.Close()
	for _, a := range accounts {
		<-a.Ready() // a key that is just being written
		a.Close()
	}
	p.relay.End(sessions, within)
	p.cancel()
	p.door.Gate.Close()
	p.relay.Running.Wait()
	p.door.Calm.End()
	p.bell.Close()
	for _, a := range accounts {
		if n := a.Owed(); n > 0 {
			p.log.Error("messages that were not sent could not be given back: no client is connected", "account", p.log.Name(a.JID()), "messages", n)
		}
	}
	for _, a := range accounts {
		a.Saved() // what has come after Close
	}
	p.door.Peers.Close()
	p.dir.Close()
}

// CA is the certificate of the local CA.
func (p *Proxy) CA() *x509.Certificate { return p.machine.CA.Cert }

// Names are the names and addresses by which devices reach this machine.
func (p *Proxy) Names() []string { return p.machine.Names() }

// Certificate is what this machine shows of itself, not of a domain, to who has come to one
// of its addresses.
func (p *Proxy) Certificate(at net.Addr) (*tls.Certificate, error) {
	return p.machine.Leaf("localhost", at)
}

// Reached are the host:port by which devices reach something that listens at an address.
func (p *Proxy) Reached(at net.Addr) []string { return p.machine.Reached(at) }

// Pages are the addresses of the page for devices.
func (p *Proxy) Pages() []string { return p.desk.Pages() }

// Commands is the table of the running proxy.
func (p *Proxy) Commands() control.Table { return p.relay.Commands }

// Connected is how many clients are logged in.
func (p *Proxy) Connected() int { return p.relay.Connected() }

// Watch is told of changes, one signal for many; stop ends it.
func (p *Proxy) Watch() (c <-chan struct{}, stop func()) { return p.bell.Watch() }

// Metrics serves the figures in Prometheus' format, and whether the proxy is well.
func (p *Proxy) Metrics() http.Handler { return p.metrics.Handler(p.ills) }

// ills are what is wrong now.
func (p *Proxy) ills() (out []metrics.Illness) {
	if p.relay.IsClosing() || !p.door.Accepting() {
		out = append(out, metrics.IllListening)
	}
	if !p.disk.Writable(p.dir.Dir) {
		out = append(out, metrics.IllState)
	}
	if p.accounts.Vault.Locked() {
		out = append(out, metrics.IllLocked)
	}
	return out
}

// now is how things stand, for the figures.
func (p *Proxy) now() metrics.Snapshot {
	s := metrics.Snapshot{Started: p.desk.Started, CAEnd: p.machine.CA.Cert.NotAfter, CertEnd: p.servers.SoonestEnd(), Sessions: p.relay.Connected(), SessionLimit: p.Config().Limits.Sessions, Accounts: p.accounts.Keeps.All(), Ills: p.ills()}
	s.Oldest, s.Waits = p.desk.Waits()
	s.Kept, s.Spared = p.desk.Kept("")
	return s
}
