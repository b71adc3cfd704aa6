package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	systemd "github.com/coreos/go-systemd/v22/daemon"

	"otrproxy/proxy"
	"otrproxy/proxy/control"
)

// A manager is the service manager that has started the process (systemd, or what speaks
// as it does), or nobody: it may have opened addresses beforehand, and wants to hear how
// things go.
type manager struct {
	conn     net.Conn // nil for nobody
	passed   []net.Listener
	watchdog time.Duration // after which it gives the process up; 0 for never
	log      *slog.Logger
}

// fromManager takes over what the manager has left in the environment. The way to it is
// opened now, since a confined process opens no local sockets.
func fromManager(log *slog.Logger) *manager {
	m := &manager{log: log}
	m.passed, _ = activation.Listeners()
	m.watchdog, _ = systemd.SdWatchdogEnabled(true)
	if socket := os.Getenv("NOTIFY_SOCKET"); socket != "" {
		os.Unsetenv("NOTIFY_SOCKET") // it is for this process alone
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
		if err != nil {
			log.Warn("the service manager cannot be told how things go", "err", err)
		} else {
			m.conn = conn
		}
	}
	return m
}

// listen opens an address, or finds it among those that were passed. Each of these is
// given once.
func (m *manager) listen(network, addr string) (net.Listener, error) {
	for i, l := range m.passed {
		if l != nil && sameAddress(l.Addr(), addr) {
			m.passed[i] = nil
			return l, nil
		}
	}
	return net.Listen(network, addr)
}

// sameAddress reports whether somebody listens on an address as the configuration writes
// it. All of this machine's addresses are written in several ways.
func sameAddress(have net.Addr, want string) bool {
	h, ok := have.(*net.TCPAddr)
	w, err := net.ResolveTCPAddr("tcp", want)
	if !ok || err != nil || h.Port != w.Port {
		return false
	}
	return h.IP.Equal(w.IP) || all(h.IP) && all(w.IP)
}

func all(ip net.IP) bool { return len(ip) == 0 || ip.IsUnspecified() }

// unused closes what was passed and nothing was configured for: nobody would answer there.
func (m *manager) unused() {
	for _, l := range m.passed {
		if l != nil {
			m.log.Warn("the service manager has opened an address that the configuration does not listen on; make .socket and \"listen\" agree", "address", l.Addr().String())
			l.Close()
		}
	}
	m.passed = nil
}

// tell tells the manager something, where there is one.
func (m *manager) tell(format string, args ...any) {
	if m.conn == nil {
		return
	}
	if _, err := fmt.Fprintf(m.conn, format, args...); err != nil {
		m.log.Debug("the service manager could not be told", "err", err)
	}
}

// reloading tells that the configuration is being read again; the end of that is ready.
func (m *manager) reloading() { m.tell("RELOADING=1\nMONOTONIC_USEC=%d", monotonic()) }

func (m *manager) ready() { m.tell("READY=1") }
func (m *manager) stopping() {
	m.tell("STOPPING=1\nSTATUS=giving back what waits")
}

// follow tells the manager, until the context ends, how many are connected, and that the
// proxy is alive: as long as it is.
func (m *manager) follow(ctx context.Context, p *proxy.Proxy) {
	if m.conn == nil {
		return
	}
	changed, stop := p.Watch()
	defer stop()
	var tick <-chan time.Time
	if m.watchdog > 0 {
		t := time.NewTicker(m.watchdog / 3)
		defer t.Stop()
		tick = t.C
		m.ping(ctx, p)
	}
	for {
		m.tell("STATUS=%d connected", p.Connected())
		select {
		case <-changed:
		case <-tick:
			m.ping(ctx, p)
		case <-ctx.Done():
			return
		}
	}
}

func (m *manager) ping(ctx context.Context, p *proxy.Proxy) {
	ctx, cancel := context.WithTimeout(ctx, m.watchdog/3)
	defer cancel()
	if err := alive(ctx, p.Addrs(), p.Commands()); err != nil {
		m.log.Error("the proxy does not answer itself; the service manager is not told that all is well, and will start it again", "err", err)
		return
	}
	m.tell("WATCHDOG=1")
}

// alive finds out whether clients are let in on every address, and whether the commands
// answer, which need all that sessions need.
func alive(ctx context.Context, addrs []net.Addr, commands control.Table) error {
	answered := make(chan error, 1)
	go func() { // it may hang, which is what is to be found out
		_, err := commands.Run(ctx, control.Actor{Place: control.InShell}, "status", nil)
		answered <- err
	}()
	for _, a := range addrs {
		if err := knock(ctx, a); err != nil {
			return fmt.Errorf("nobody is let in on %s: %w", a, err)
		}
	}
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return errors.New("the commands do not answer")
	}
}

// knock connects and goes, and waits until that was noticed. An address that the machine
// has no longer is no fault of the proxy's.
func knock(ctx context.Context, a net.Addr) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", a.String())
	if err != nil {
		return nil
	}
	defer conn.Close()
	end, _ := ctx.Deadline()
	conn.SetDeadline(end)
	conn.(*net.TCPConn).CloseWrite()
	_, err = conn.Read(make([]byte, 1))
	var slow net.Error
	if errors.As(err, &slow) && slow.Timeout() {
		return err
	}
	return nil // let in and out again, or told that there is no room
}
