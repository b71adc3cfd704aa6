package proxy

import (
	"context"
	"crypto/sha256"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"otrproxy/config"
	"otrproxy/proxy/control"
)

// What the page for devices (package welcome) shows of this machine, and what a person at
// the machine itself compares it with.

// reached are the host:port by which devices reach something that listens here: by the
// configured names, else by the addresses.
func (m *machine) reached(at net.Addr) (out []string) {
	t, ok := at.(*net.TCPAddr)
	if !ok {
		return nil
	}
	port, ip := strconv.Itoa(t.Port), addressOf(at)
	hosts := m.config().Names
	switch {
	case ip.IsLoopback() || len(hosts) == 0 && !ip.IsUnspecified():
		hosts = []string{ip.String()}
	case len(hosts) == 0:
		hosts = m.addresses()
		slices.SortStableFunc(hosts, func(a, b string) int { return strings.Count(a, ":") - strings.Count(b, ":") }) // the short ones first
	}
	for _, h := range hosts {
		if x, err := netip.ParseAddr(h); err != nil || !ip.IsUnspecified() || ip.Is6() || x.Is4() {
			out = append(out, net.JoinHostPort(h, port))
		}
	}
	return out
}

// pages are the addresses of the page for devices.
func (k *desk) pages() []string {
	out := []string{}
	if k.welcome != nil {
		for _, at := range k.machine.reached(k.welcome()) {
			out = append(out, "http://"+at+"/")
		}
	}
	return out
}

func (k *desk) caShow(context.Context, control.Call) (control.Reply, error) {
	cert := k.machine.ca.cert
	sum := sha256.Sum256(cert.Raw)
	line := control.CALine{Name: cert.Subject.CommonName, SHA256: config.ColonHex(sum[:]), Until: cert.NotAfter.UTC().Format(time.DateOnly), Only: control.VouchesFor(cert), Pages: k.pages()}
	text := line.Name + ", good until " + line.Until + "\nSHA-256 " + line.SHA256 + "\nThat is what a device must show that installs it."
	if len(line.Only) == 0 {
		text += "\nIt is not limited to some names: whoever stole its key could play any site. List your domains in the configuration."
	} else {
		text += "\nIt may vouch for these only: " + strings.Join(line.Only, ", ")
	}
	if len(line.Pages) == 0 {
		return control.Reply{Text: text + "\nThe page for devices is off; set \"onboarding\" in the configuration, such as onboarding: \"0.0.0.0:5288\", and start otrproxy anew.", Data: []control.CALine{line}}, nil
	}
	text += "\nDevices get it, and read what to set, at " + strings.Join(line.Pages, " or ")
	return control.Reply{Text: text, Data: []control.CALine{line}, QR: control.DeviceLink(line.Pages[0], cert.Raw)}, nil
}
