package config

import "testing"

// What a configuration may name as a SOCKS proxy can be dialled as it stands.
func TestVia(t *testing.T) {
	for via, want := range map[string]bool{
		"socks5://127.0.0.1:9050": true, "socks5://[::1]:9050": true, "socks5://tor.lan:1": true, "socks5://localhost:65535": true,
		"SOCKS5://127.0.0.1:9050": false, "socks5h://127.0.0.1:9050": false, "socks4://127.0.0.1:9050": false, "http://127.0.0.1:9050": false, "127.0.0.1:9050": false,
		"socks5://127.0.0.1": false, "socks5://:9050": false, "socks5://127.0.0.1:": false, "socks5://127.0.0.1:0": false, "socks5://127.0.0.1:65536": false,
		"socks5://127.0.0.1:9050/": false, "socks5://127.0.0.1:9050?": false, "socks5://127.0.0.1:9050#": false, "socks5://127.0.0.1:9050?x": false,
		"socks5://me:secret@127.0.0.1:9050": false, "socks5://@127.0.0.1:9050": false, "socks5://a b:9050": false, "socks5://a%62:9050": false, "socks5://a%20b:9050": false,
		"socks5:127.0.0.1:9050": false, " socks5://127.0.0.1:9050": false, "socks5://": false, "": false,
	} {
		if err := CheckVia(via); (err == nil) != want {
			t.Errorf("%q: %v", via, err)
		}
	}
}
