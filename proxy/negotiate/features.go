package negotiate

import (
	"strconv"
	"strings"

	"otrproxy/stanza"
)

// features are those a client may see after its login: what both we and the relay
// can honour. Left out by not being listed are compression (XEP-0138), stream
// management (whose counters would not fit), SASL2, Bind 2 and FAST.
var features = map[string]string{
	stanza.NSBind:                            "bind",
	"urn:ietf:params:xml:ns:xmpp-session":    "session",
	"urn:xmpp:features:rosterver":            "ver",
	"urn:xmpp:features:pre-approval":         "sub",
	"urn:xmpp:csi:0":                         "csi",
	"http://jabber.org/protocol/caps":        "c",
	"urn:xmpp:stream-limits:0":               "limits",
	"http://jabber.org/features/iq-register": "register",
}

// appendFeatures rebuilds the server's features for the client.
func appendFeatures(dst []byte, st *stanza.Stanza) []byte {
	for f := range st.Root().Children() {
		ns := string(f.NS())
		if features[ns] != string(f.Local()) {
			continue
		}
		if ns == "urn:xmpp:stream-limits:0" {
			dst = appendLimits(dst, f)
			continue
		}
		// Rebuilt: prefixes may have been declared outside it. What stands inside is
		// of no use to a client but for XEP-0115's attributes and <required/> and <optional/>.
		dst = append(append(append(dst, '<'), f.Local()...), " xmlns='"+ns+"'"...)
		for name := range f.AttrNames() {
			if name == "hash" || name == "node" || name == "ver" {
				dst = stanza.AppendAttr(dst, name, f.Attr(name))
			}
		}
		dst = append(dst, '>')
		for c := range f.Children() {
			if l := string(c.Local()); l == "required" || l == "optional" {
				dst = append(dst, "<"+l+"/>"...)
			}
		}
		dst = append(append(append(dst, "</"...), f.Local()...), '>')
	}
	return dst
}

// appendLimits lowers the server's stanza size (XEP-0478) to what still fits
// after base64 and what we put around it.
func appendLimits(dst []byte, f stanza.Element) []byte {
	dst = append(dst, "<limits xmlns='urn:xmpp:stream-limits:0'>"...)
	for c := range f.Children() {
		n, err := strconv.Atoi(strings.TrimSpace(c.Text()))
		if err != nil || n < 0 {
			continue
		}
		switch string(c.Local()) {
		case "max-bytes":
			dst = append(dst, "<max-bytes>"+strconv.Itoa(max(n*3/4-2048, 1024))+"</max-bytes>"...)
		case "idle-seconds":
			dst = append(dst, "<idle-seconds>"+strconv.Itoa(n)+"</idle-seconds>"...)
		}
	}
	return append(dst, "</limits>"...)
}
