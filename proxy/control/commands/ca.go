package commands

import (
	"context"
	"crypto/sha256"
	"strings"
	"time"

	"otrproxy/config"
	"otrproxy/proxy/control"
)

// Pages are the addresses of the page for devices.
func (k *Desk) Pages() []string {
	out := []string{}
	if k.Welcome != nil {
		for _, at := range k.Machine.Reached(k.Welcome()) {
			out = append(out, "http://"+at+"/")
		}
	}
	return out
}

func (k *Desk) caShow(context.Context, control.Call) (control.Reply, error) {
	cert := k.Machine.CA.Cert
	sum := sha256.Sum256(cert.Raw)
	line := control.CALine{Name: cert.Subject.CommonName, SHA256: config.ColonHex(sum[:]), Until: cert.NotAfter.UTC().Format(time.DateOnly), Only: control.VouchesFor(cert), Pages: k.Pages()}
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
