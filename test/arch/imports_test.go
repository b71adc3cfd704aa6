// Package arch holds the test of who may import whom.
package arch

import (
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// floors are the product's rooms, each with those of ours that it may import. A room stands
// above all that it may import, so arrows point down only.
var floors = []struct {
	room string
	may  []string
}{
	{"stanza", nil},
	{"config", nil},
	{"confine", nil},
	{"otrlayer/otr", nil},
	{"otrlayer/text", []string{"otrlayer/otr"}},
	{"otrlayer/keyring", []string{"otrlayer/otr"}},
	{"otrlayer", []string{"otrlayer/keyring", "otrlayer/otr", "otrlayer/text"}},

	{"proxy/hostname", nil},
	{"proxy/causes", nil},
	{"proxy/control", nil},
	{"proxy/filter", []string{"config", "stanza"}},
	{"proxy/address", []string{"otrlayer/text", "stanza"}},
	{"proxy/journal", []string{"proxy/causes", "proxy/hostname"}},
	{"proxy/dnssec", []string{"proxy/hostname"}},
	{"proxy/state", []string{"otrlayer/keyring", "proxy/address", "proxy/control"}},
	{"proxy/leg", []string{"otrlayer", "stanza"}},
	{"proxy/localca", []string{"config", "proxy/hostname", "proxy/state"}},
	{"proxy/metrics", []string{"otrlayer", "otrlayer/keyring", "proxy/causes", "proxy/control"}},
	{"proxy/notify", []string{"config", "proxy/journal", "proxy/metrics"}},
	{"proxy/upstream", []string{"config", "stanza", "proxy/causes", "proxy/control", "proxy/dnssec", "proxy/hostname", "proxy/journal", "proxy/leg", "proxy/notify", "proxy/state"}},
	{"proxy/sasl", []string{"config", "otrlayer", "otrlayer/keyring", "stanza", "proxy/address", "proxy/causes", "proxy/journal", "proxy/notify", "proxy/state", "proxy/upstream"}},
	{"proxy/accounts", []string{"config", "otrlayer", "otrlayer/keyring", "proxy/causes", "proxy/journal", "proxy/notify", "proxy/state"}},
	{"proxy/service", []string{"otrlayer/keyring", "proxy/address", "proxy/control", "proxy/filter", "proxy/journal", "proxy/leg", "stanza"}},
	{"proxy/relay", []string{"config", "otrlayer", "otrlayer/keyring", "otrlayer/text", "stanza", "proxy/accounts", "proxy/address", "proxy/causes", "proxy/control", "proxy/filter", "proxy/journal", "proxy/leg", "proxy/metrics", "proxy/notify", "proxy/sasl", "proxy/service", "proxy/state", "proxy/upstream"}},
	{"proxy/listen", []string{"config", "stanza", "proxy/address", "proxy/causes", "proxy/hostname", "proxy/journal", "proxy/leg", "proxy/localca"}},
	{"proxy/negotiate", []string{"config", "otrlayer", "otrlayer/keyring", "stanza", "proxy/accounts", "proxy/address", "proxy/causes", "proxy/hostname", "proxy/journal", "proxy/leg", "proxy/listen", "proxy/localca", "proxy/metrics", "proxy/relay", "proxy/sasl", "proxy/state", "proxy/upstream"}},
	{"proxy/control/commands", []string{"config", "otrlayer", "otrlayer/keyring", "proxy/accounts", "proxy/address", "proxy/causes", "proxy/control", "proxy/hostname", "proxy/journal", "proxy/localca", "proxy/notify", "proxy/relay", "proxy/sasl", "proxy/state", "proxy/upstream"}},
	{"proxy/control/page", []string{"proxy/control"}},
	{"proxy/control/welcome", []string{"proxy/control"}},
	{"proxy", []string{"config", "proxy/accounts", "proxy/causes", "proxy/control", "proxy/control/commands", "proxy/journal", "proxy/listen", "proxy/localca", "proxy/metrics", "proxy/negotiate", "proxy/notify", "proxy/relay", "proxy/sasl", "proxy/state", "proxy/upstream"}},

	{"demo/server", []string{"stanza"}},
	{"demo/client", []string{"stanza"}},
	{"cmd/otrproxy", []string{"config", "confine", "demo/client", "demo/server", "proxy", "proxy/control", "proxy/control/commands", "proxy/control/page", "proxy/control/welcome", "proxy/notify", "proxy/state"}},
}

// tools are what belongs to no product: tests, benchmarks and packaging, with those of ours that
// each may import.
var tools = map[string][]string{
	"test/interop":   {"otrlayer/otr", "test/need"},
	"test/need":      {"otrlayer/otr"},
	"test/chromium":  {"test/need"},
	"test/readers":   {"test/need"},
	"test/bench":     {"otrlayer", "otrlayer/keyring", "stanza", "demo/client", "demo/server"},
	"test/bench/otr": {"otrlayer/otr"},
}

// strangers are imports of others' packages that only one place may have.
var strangers = map[string]string{
	"github.com/coyim/otr3":                          "",
	"github.com/prometheus/client_golang/prometheus": "proxy/metrics",
	"github.com/spf13/cobra":                         "cmd/otrproxy",
	"github.com/armon/go-socks5":                     "proxy/listen",
	"github.com/gobwas/ws":                           "proxy/listen",
	"github.com/gofrs/flock":                         "proxy/state",
	"github.com/xdg-go/scram":                        "demo/client demo/server proxy/negotiate proxy/sasl",
	"filippo.io/age":                                 "proxy/state",
	"rsc.io/qr":                                      "cmd/otrproxy proxy/control/page proxy/control/welcome",
	"html/template":                                  "proxy/control/page proxy/control/welcome",
	"go.yaml.in/yaml/v3":                             "config proxy/sasl proxy/upstream",
	"encoding/xml":                                   "",
	"mellium.im/xmpp/jid":                            "proxy/address proxy/negotiate proxy/relay proxy/sasl proxy/service",
	"github.com/landlock-lsm/go-landlock/landlock":   "confine",
	"github.com/elastic/go-seccomp-bpf":              "confine",
	"os/exec":                                        "cmd/otrproxy proxy/notify",
}

// forbidden are imports a room must not know.
var forbidden = map[string][]string{
	"stanza":         {"net", "os", "crypto/tls"},
	"otrlayer":       {"net", "net/http", "encoding/xml", "go.yaml.in/yaml/v3"},
	"otrlayer/otr":   {"net", "net/http", "os", "sync", "crypto/rand", "encoding/xml"},
	"config":         {"net/http", "crypto/tls"},
	"confine":        {"net/http", "crypto/tls", "os/exec"},
	"proxy/filter":   {"net", "net/http", "os", "sync", "encoding/xml"},
	"proxy/address":  {"net", "os", "crypto/tls"},
	"proxy/causes":   {"net/http", "os", "sync", "crypto/tls"},
	"proxy/hostname": {"os", "sync", "net/http"},
	"proxy/control":  {"encoding/xml", "crypto/tls", "net/http"},
	"proxy/relay":    {"net/http", "crypto/x509"},
	"proxy/service":  {"net", "net/http", "crypto/tls"},
	"proxy/leg":      {"os/exec", "net/http"},

	"proxy/control/commands": {"net/http"},
	"proxy/control/page":     {"encoding/xml", "crypto/tls", "os", "net/http/httputil"},
	"proxy/control/welcome":  {"encoding/xml", "os", "net/http/httputil", "crypto/ecdsa"},
}

// systems are those that releases are built for.
var systems = []string{"linux", "windows", "darwin", "freebsd"}

// TestFloors: a room stands above all that it may import, so that there is no way back up.
func TestFloors(t *testing.T) {
	below := map[string]bool{}
	for _, f := range floors {
		for _, m := range f.may {
			if !below[m] {
				t.Errorf("%s may import %s, which does not stand below it", f.room, m)
			}
		}
		below[f.room] = true
	}
}

func TestImports(t *testing.T) {
	allowed := maps.Clone(tools)
	for _, f := range floors {
		allowed[f.room] = f.may
	}
	for _, system := range systems {
		t.Run(system, func(t *testing.T) {
			list := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "otrproxy/...")
			list.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
			out, err := list.Output()
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for line := range strings.Lines(string(out)) {
				f := strings.Fields(line)
				pkg := strings.TrimPrefix(f[0], "otrproxy/")
				seen[pkg] = true
				for _, path := range f[1:] {
					i, ours := strings.CutPrefix(path, "otrproxy/")
					if ours && !slices.Contains(allowed[pkg], i) {
						t.Errorf("%s must not import %s", pkg, i)
					}
					if homes, ok := strangers[path]; ok && !slices.Contains(strings.Fields(homes), pkg) && !isTool(pkg) {
						t.Errorf("%s must not import %s", pkg, path)
					}
					if slices.Contains(forbidden[pkg], path) {
						t.Errorf("%s must not know %s", pkg, path)
					}
				}
			}
			for _, f := range floors {
				if !seen[f.room] {
					t.Errorf("there is no room %s", f.room)
				}
			}
		})
	}
}

// isTool reports whether a package is no part of the product. Nothing of the product imports one:
// none is among what a room may import.
func isTool(pkg string) bool {
	return strings.HasPrefix(pkg, "test/") || strings.HasPrefix(pkg, "packaging/")
}

// TestRoomsAreDescribed: each room says what it does, owns and must not know.
func TestRoomsAreDescribed(t *testing.T) {
	for _, f := range floors {
		out, err := exec.Command("go", "list", "-f", "{{.Doc}}", "otrproxy/"+f.room).Output()
		if err != nil || len(strings.TrimSpace(string(out))) == 0 {
			t.Errorf("%s has no package comment (%v)", f.room, err)
		}
	}
}

// The program is built without otr3, which is only a peer in tests; and the engine
// takes its clock and its randomness from its caller.
func TestProductWithoutOTR3(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "otrproxy/cmd/otrproxy").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "otrproxy/otrlayer/otr\n") {
		t.Error("the program is built without the OTR engine")
	}
	if strings.Contains(string(out), "otr3") {
		t.Error("the program is built with otr3")
	}
	out, err = exec.Command("grep", "-nE", `time\.(Now|Since|After|Sleep|Tick|NewTimer)|\bgo func|\bgo [a-z]+\(`, "-r", "--include=*.go", "--exclude=*_test.go", "../../otrlayer/otr").Output()
	if err == nil || len(out) > 0 {
		t.Errorf("the engine reads a clock or starts a goroutine:\n%s", out)
	}
}

// TestArchitectureNamesEveryRoom: the page that people read first has the rooms that there are.
func TestArchitectureNamesEveryRoom(t *testing.T) {
	page, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## Rooms")
	table, _, ok := strings.Cut(table, "\n## ")
	if !ok {
		t.Fatal("the page has no rooms")
	}
	for _, f := range floors {
		if !strings.Contains(table, "`"+f.room+"`") {
			t.Errorf("docs/architecture.md does not name %s", f.room)
		}
	}
}
