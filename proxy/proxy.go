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
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/proxy/control"
	"otrproxy/stanza"
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

// A Proxy serves clients until it is shut down.
type Proxy struct {
	cfg          atomic.Pointer[config.Config]
	opt          Options
	log          *slog.Logger
	roots        *x509.CertPool
	resolver     *net.Resolver
	dns          func() *validating // as the machine is set now
	state        *State
	ca           *authority
	pins         *pinStore
	vault        *vault
	maker        *otrlayer.Maker // of all accounts' keys
	hook         *hook
	disk         disk
	watchers     watchers
	gate         *gate
	addresses    addresses
	roomServices roomServices
	toldRooms    toldRooms
	turnedAway   turnedAway
	offers       offers
	passwords    *passwords
	guesses      *guesses
	peers        peers
	memory       memory
	calm         calm
	metrics      *metrics
	commands     control.Table
	started      time.Time
	logKey       [32]byte
	circuits     [32]byte // by which accounts differ towards SOCKS proxies

	ctx      context.Context // ends with the proxy
	cancel   context.CancelFunc
	reloaded chan struct{} // a signal for who waits by the old configuration
	wg       sync.WaitGroup

	passing     sync.Mutex   // one change of the passphrase at a time
	keyFiles    sync.RWMutex // held while an account is opened, and alone while the key files of all change; taken before mu
	remembering sync.Mutex   // guards what accounts remember of the service contact, and of their logins

	mu           sync.Mutex
	listeners    []net.Listener
	sessions     everybody
	accounts     map[string]*otrlayer.Account
	opening      map[string]*opening
	refusals     map[string]*refusal
	certificates map[string]*certificateSeen // last seen, by domain
	moves        map[string]moved            // where servers have sent their clients
	weaker       map[string]*Failure         // logins that a server wants to be weaker than before, by account
	plainly      map[plainly]time.Time       // until when a host is offered PLAIN alone
	seats        map[place]int               // sessions of accounts, and who is about to have one
	unmade       map[string][]func()         // what is written once an account has come to use
	fresh        map[string]int              // seats of accounts that are not made yet
	kin          kin
	keeps        keeps                    // what all accounts keep
	contacts     atomic.Int64             // that all sessions know of
	suspended    map[[2]string]*suspended // sessions that lost their server, by account and resource
	machine      []string                 // this machine's addresses
	closing      bool
}

// New opens the state directory and prepares a proxy.
func New(cfg *config.Config, opt Options) (*Proxy, error) {
	if err := Supported(cfg); err != nil {
		return nil, err
	}
	state, err := OpenState(cfg.State)
	if err != nil {
		return nil, err
	}
	p := prepared(cfg, opt)
	p.state, p.machine = state, machineAddresses()
	p.peers.open()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	fail := func(err error) (*Proxy, error) {
		p.cancel()
		p.peers.close()
		state.Close()
		return nil, err
	}
	if err := state.upgrade(p.log); err != nil {
		return fail(err)
	}
	if p.pins, err = openPins(cfg.State); err != nil {
		return fail(err)
	}
	if p.vault, err = openVault(cfg.State); err != nil {
		return fail(err)
	}
	p.maker = otrlayer.NewMaker(cfg.State, p.vault, p.logged)
	p.maker.Rested = debug.FreeOSMemory
	if p.vault.locked() {
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
	p.ca = ca
	p.metrics = newMetrics(p)
	p.gate = newGate(p.memory.tight, p.metrics.refused)
	p.commands = p.table()
	p.hook = newHook(p)
	return p, nil
}

// prepared is a proxy without its state.
func prepared(cfg *config.Config, opt Options) *Proxy {
	p := &Proxy{opt: opt, log: opt.Log, roots: opt.Roots, resolver: opt.Resolver, started: time.Now(), vault: &vault{}, passwords: newPasswords(), guesses: newGuesses(), reloaded: make(chan struct{}, 1),
		accounts: map[string]*otrlayer.Account{}, opening: map[string]*opening{}, refusals: map[string]*refusal{}, moves: map[string]moved{}, certificates: map[string]*certificateSeen{}, weaker: map[string]*Failure{}, plainly: map[plainly]time.Time{}, seats: map[place]int{}, unmade: map[string][]func(){}, fresh: map[string]int{}, suspended: map[[2]string]*suspended{}}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.resolver == nil {
		p.resolver = net.DefaultResolver
	}
	p.dns = systemResolver
	if opt.DNSSEC != "" {
		v := newValidating(true, opt.DNSSEC)
		p.dns = func() *validating { return v }
	}
	if p.opt.Listen == nil {
		p.opt.Listen = net.Listen
	}
	if p.opt.Dial == nil {
		p.opt.Dial = (&net.Dialer{Resolver: p.resolver}).DialContext
	}
	rand.Read(p.logKey[:])
	rand.Read(p.circuits[:])
	p.cfg.Store(cfg)
	p.memory.limit = func() int { return p.Config().Limits.Memory }
	return p
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
	case p.ca.covers(domains, cfg.Names):
	case !p.ca.constrained():
		p.log.Warn("the local CA may sign for any domain, though domains are listed; the next start makes one that can sign for these only, and clients must trust that one then")
	default:
		p.log.Warn("the local CA may not sign for a domain or a name of this machine that is new in the configuration; clients that check certificates can use it after the next start, which makes a new CA")
	}
	p.cfg.Store(cfg)
	select {
	case p.reloaded <- struct{}{}:
	default:
	}
	p.forgive()
	if p.opt.Notifier != nil {
		p.opt.Notifier.Reload()
	}
	p.log.Info("configuration re-read", "file", cfg.File)
	return nil
}

// Listen opens the configured addresses.
func (p *Proxy) Listen() error {
	for _, addr := range p.Config().Listen {
		l, err := p.opt.Listen("tcp", addr)
		if err != nil {
			p.closeListeners()
			return fmt.Errorf("cannot listen on %s: %s; another program may use the port: end it, or set \"listen\" to another one", addr, short(err))
		}
		p.mu.Lock()
		p.listeners = append(p.listeners, &listener{Listener: l})
		p.mu.Unlock()
	}
	return nil
}

// Addrs are the addresses listened on.
func (p *Proxy) Addrs() (out []net.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.listeners {
		out = append(out, l.Addr())
	}
	return out
}

func (p *Proxy) closeListeners() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.listeners {
		l.Close()
	}
}

// Serve accepts clients until Shutdown.
func (p *Proxy) Serve() {
	p.mu.Lock()
	ls := slices.Clone(p.listeners)
	p.mu.Unlock()
	if p.begin() {
		go func() { defer p.wg.Done(); p.askAll() }()
	}
	var wg sync.WaitGroup
	for _, l := range ls {
		wg.Go(func() { p.accept(l) })
	}
	wg.Wait()
	p.wg.Wait()
}

// Shutdown ends all conversations politely, gives back the messages that wait,
// tells the clients, and lets go of the state directory.
func (p *Proxy) Shutdown(within time.Duration) {
	p.closeListeners()
	p.mu.Lock()
	p.closing = true
	left := slices.Collect(maps.Values(p.suspended))
	clear(p.suspended)
	accounts := make([]*otrlayer.Account, 0, len(p.accounts))
	for _, a := range p.accounts {
		accounts = append(accounts, a)
	}
	sessions := p.sessions.all("")
	p.mu.Unlock()
	for _, old := range left {
		old.expires.Stop()
		old.giveBack(otrlayer.CauseUncertain)
	}
	p.maker.Close()
	for _, a := range accounts {
		<-a.Ready() // a key that is just being written
		a.Close()
	}
	var wg sync.WaitGroup
	for _, s := range sessions {
		wg.Go(func() { s.shutdown(within) })
	}
	wg.Wait()
	p.cancel()
	p.gate.close()
	p.wg.Wait()
	p.calm.end()
	p.hook.close()
	for _, a := range accounts {
		if n := a.Owed(); n > 0 {
			p.log.Error("messages that were not sent could not be given back: no client is connected", "account", p.name(a.JID()), "messages", n)
		}
	}
	for _, a := range accounts {
		a.Saved() // what has come behind Close
	}
	p.peers.close()
	p.state.Close()
}

// settings are what an account takes from the configuration in force, made once for each.
func (p *Proxy) settings(jid string) func() otrlayer.Settings {
	type made struct {
		of  *config.Config
		set otrlayer.Settings
	}
	var last atomic.Pointer[made]
	return func() otrlayer.Settings {
		cfg := p.Config()
		if m := last.Load(); m != nil && m.of == cfg {
			return m.set
		}
		set := otrlayer.Settings{
			Policy:   func(contact string) otrlayer.Policy { return policy(cfg.RuleFor(jid, contact).Policy) },
			Versions: func(contact string) []int { return cfg.RuleFor(jid, contact).Versions },
			Drop:     func(contact string) bool { return cfg.RuleFor(jid, contact).Drop },
			Idle:     cfg.Idle,
			Hold:     otrlayer.Hold{Messages: cfg.Hold.Messages, Bytes: cfg.Hold.Bytes, For: cfg.Hold.For, Offline: cfg.Hold.Offline},
			Largest:  cfg.Limits.Stanza,
			Reason:   func(contact string) string { return cfg.RuleFor(jid, contact).Reason },
			Full:     p.memory.tight,
			HandsOff: func() bool { return cfg.HandsOff(jid) },
		}
		last.Store(&made{cfg, set})
		return set
	}
}

func policy(c config.Policy) otrlayer.Policy {
	switch c {
	case config.Never:
		return otrlayer.Never
	case config.Manual:
		return otrlayer.Manual
	case config.Opportunistic:
		return otrlayer.Opportunistic
	case config.RequireVerify:
		return otrlayer.RequireVerified
	}
	return otrlayer.Require
}

type accountEvents struct {
	p   *Proxy
	jid string
}

func (e accountEvents) Happened(contact string, what otrlayer.Event) {
	e.p.happened(string(what), e.jid, contact)
}

func (e accountEvents) Handshake(result string)         { e.p.metrics.handshake(result) }
func (e accountEvents) Keeps(before, now otrlayer.Kept) { e.p.keeps.add(before, now) }
func (e accountEvents) Log(level int, what string, err error) {
	e.p.logged(level, what, err)
}

func (p *Proxy) logged(level int, what string, err error) {
	p.log.Log(context.Background(), slog.Level(level), what, "err", err)
}

// name is a JID or domain as it may stand in the log: hashed, unless the
// configuration asks for it in clear. The hash is the same within one run.
func (p *Proxy) name(jid string) string {
	if p.Config().Log.JIDs {
		return jid
	}
	m := hmac.New(sha256.New, p.logKey[:])
	m.Write([]byte(jid))
	return "#" + hex.EncodeToString(m.Sum(nil)[:5])
}

func (p *Proxy) clientLimits() stanza.Limits {
	return stanza.Limits{Bytes: p.Config().Limits.Stanza}
}

// serverLimits are wider: rosters and archives come in large pieces.
func (p *Proxy) serverLimits() stanza.Limits {
	return stanza.Limits{Bytes: max(4<<20, 4*p.Config().Limits.Stanza), Elements: 1 << 17}
}
