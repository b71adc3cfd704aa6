package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/idna"
)

// Load reads and checks a configuration file.
func Load(file string) (*Config, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("the configuration cannot be read: %w", err)
	}
	return Parse(file, b)
}

// Parse checks a configuration; file is named in errors, which begin "file:line: ".
func Parse(file string, b []byte) (*Config, error) {
	c := Default()
	c.File = file
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, yamlError(file, err)
	}
	if doc.Kind == 0 { // an empty file
		return c, nil
	}
	if err := c.document(doc.Content[0]); err != nil {
		var at *located
		if errors.As(err, &at) {
			return nil, fmt.Errorf("%s:%d: %s", file, at.line, at.text)
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

func yamlError(file string, err error) error {
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		line := m[1]
		if line == "" {
			line = "1"
		}
		return fmt.Errorf("%s:%s: this is not YAML: %s", file, line, m[2])
	}
	return fmt.Errorf("%s:1: this is not YAML: %w", file, err)
}

// located is an error with its line.
type located struct {
	line int
	text string
}

func (l *located) Error() string { return l.text }

func at(n *yaml.Node, format string, args ...any) error {
	return &located{n.Line, fmt.Sprintf(format, args...)}
}

type fields map[string]func(*yaml.Node) error

// mapping calls a function for every key of a mapping, and refuses unknown and
// repeated ones.
func mapping(n *yaml.Node, what string, known fields) error {
	if n.Kind != yaml.MappingNode {
		return at(n, "%s must be a mapping (key: value)", what)
	}
	seen := map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			return at(k, "a key of %s must be a word", what)
		}
		if line, twice := seen[k.Value]; twice {
			return at(k, "%q is set twice in %s (first on line %d)", k.Value, what, line)
		}
		seen[k.Value] = k.Line
		f, ok := known[k.Value]
		if !ok {
			names := make([]string, 0, len(known))
			for name := range known {
				names = append(names, name)
			}
			slices.Sort(names)
			return at(k, "%q is not a setting of %s; there are: %s", k.Value, what, strings.Join(names, ", "))
		}
		if v.Kind == yaml.AliasNode {
			return at(v, "anchors and aliases are not used here; write the value out")
		}
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) document(n *yaml.Node) error {
	return mapping(n, "the configuration", fields{
		"listen": func(n *yaml.Node) error {
			c.Listen = nil
			err := each(n, "listen", func(n *yaml.Node) error {
				var a string
				if err := address(n, &a); err != nil {
					return err
				}
				if slices.Contains(c.Listen, a) {
					return at(n, "%q is listened on twice", a)
				}
				c.Listen = append(c.Listen, a)
				return nil
			})
			if err == nil && len(c.Listen) == 0 {
				return at(n, "listen needs at least one address, such as 127.0.0.1:5222")
			}
			return err
		},
		"state":   func(n *yaml.Node) error { return filePath(n, &c.State) },
		"web":     func(n *yaml.Node) error { return offOrAddress(n, &c.Web) },
		"metrics": func(n *yaml.Node) error { return offOrAddress(n, &c.Metrics) },
		"log":     c.log,
		"notify":  c.notify,
		"domains": c.domains,
		"admins":  c.admins,
		"origins": c.origins,
		"otr":     c.otr,
		"access":  c.access,

		"names":      c.names,
		"onboarding": func(n *yaml.Node) error { return offOrAddress(n, &c.Onboarding) },

		"hold": func(n *yaml.Node) error {
			return mapping(n, "hold", fields{
				"messages": func(n *yaml.Node) error { return number(n, &c.Hold.Messages, 0, 1_000_000) },
				"bytes":    func(n *yaml.Node) error { return size(n, &c.Hold.Bytes, 0, 1<<30) },
				"for":      func(n *yaml.Node) error { return duration(n, &c.Hold.For, time.Second, 30*24*time.Hour) },
				"offline":  func(n *yaml.Node) error { return duration(n, &c.Hold.Offline, time.Second, 30*24*time.Hour) },
			})
		},
		"idle":    func(n *yaml.Node) error { return duration(n, &c.Idle, time.Minute, 365*24*time.Hour) },
		"confine": func(n *yaml.Node) error { return word(n, &c.Confine, "auto", "require", "off") },
		"limits": func(n *yaml.Node) error {
			said := false
			err := mapping(n, "limits", fields{
				"sessions":    func(n *yaml.Node) error { return number(n, &c.Limits.Sessions, 1, 1_000_000) },
				"per_address": func(n *yaml.Node) error { return number(n, &c.Limits.PerAddress, 1, 1_000_000) },
				"per_account": func(n *yaml.Node) error { return number(n, &c.Limits.PerAccount, 1, 1_000_000) },
				"accounts":    func(n *yaml.Node) error { return number(n, &c.Limits.Accounts, 1, 1_000_000) },
				"pending":     func(n *yaml.Node) error { return number(n, &c.Limits.Pending, 1, 1_000_000) },
				"rate":        func(n *yaml.Node) error { return number(n, &c.Limits.Rate, 1, 10_000_000) },
				"memory":      func(n *yaml.Node) error { return size(n, &c.Limits.Memory, 32<<20, math.MaxInt32) },
				"stanza":      func(n *yaml.Node) error { return size(n, &c.Limits.Stanza, 10_000, 64<<20) },
				"login":       func(n *yaml.Node) error { return duration(n, &c.Limits.Login, time.Second, 10*time.Minute) },
				"linger":      func(n *yaml.Node) error { return durationOrNone(n, &c.Limits.Linger, time.Second, time.Hour) },
				"answer":      func(n *yaml.Node) error { return duration(n, &c.Limits.Answer, time.Second, 10*time.Minute) },
				"alive": func(n *yaml.Node) error {
					said = true
					return durationOrNone(n, &c.Limits.Alive, time.Second, 24*time.Hour)
				},
			})
			if !said {
				c.Limits.Alive = max(c.Limits.Alive, 2*c.Limits.Answer)
			}
			if l := c.Limits; err == nil && l.Alive > 0 && l.Alive < 2*l.Answer {
				err = at(n, "alive (%s) has to be at least twice answer (%s): a silent server is asked first, and then has that long to answer", l.Alive, l.Answer)
			}
			return err
		},
	})
}

func (c *Config) notify(n *yaml.Node) error {
	c.Notify.Events = defaultEvents
	err := mapping(n, "notify", fields{
		"command": func(n *yaml.Node) error {
			return each(n, "command", func(n *yaml.Node) error {
				if n.Kind != yaml.ScalarNode || n.Value == "" {
					return at(n, "command is a program and its arguments, such as [/usr/local/bin/tell-me]")
				}
				c.Notify.Command = append(c.Notify.Command, n.Value)
				return nil
			})
		},
		"events": func(n *yaml.Node) error {
			c.Notify.Events = nil
			return each(n, "events", func(n *yaml.Node) error {
				var w string
				if err := word(n, &w, NotifyEvents...); err != nil {
					return err
				}
				c.Notify.Events = append(c.Notify.Events, w)
				return nil
			})
		},
	})
	if err == nil && len(c.Notify.Command) == 0 {
		err = at(n, "notify needs a command: a program and its arguments, such as [/usr/local/bin/tell-me]")
	}
	return err
}

func (c *Config) log(n *yaml.Node) error {
	return mapping(n, "log", fields{
		"level":  func(n *yaml.Node) error { return word(n, &c.Log.Level, "debug", "info", "warn", "error") },
		"format": func(n *yaml.Node) error { return word(n, &c.Log.Format, "text", "json") },
		"jids":   func(n *yaml.Node) error { return boolean(n, &c.Log.JIDs) },
	})
}

func (c *Config) domains(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return at(n, "domains must be a mapping from a domain's name to its settings")
	}
	c.Domains = map[string]Domain{}
	for i := 0; i < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		name, err := idna.Lookup.ToUnicode(strings.TrimSuffix(k.Value, "."))
		if err != nil || name == "" || strings.ContainsAny(name, "/@ *") {
			return at(k, "%q is not a domain name", k.Value)
		}
		if _, twice := c.Domains[name]; twice {
			return at(k, "the domain %s is set twice", name)
		}
		d := Domain{Name: name, TLS: TLSAuto, Trust: TrustTOFU}
		if v.Kind != yaml.ScalarNode || v.Tag != "!!null" {
			if err := d.settings(v); err != nil {
				return err
			}
		}
		if (d.Trust == TrustPin || d.Trust == TrustCAPin) && len(d.Pins) == 0 {
			return at(k, "%s has trust: %s but no pins; \"otrproxy pin probe %s\" shows what the server presents", name, d.Trust, name)
		}
		if d.Trust == TrustDANE && d.Via != "" {
			return at(k, "%s has both trust: dane and via, but what DNS says cannot be asked for through a SOCKS proxy; use trust: pin, ca or tofu", name)
		}
		c.Domains[name] = d
	}
	return nil
}

// CheckVia checks the address of a SOCKS proxy, socks5://host:port.
func CheckVia(via string) error {
	u, err := url.Parse(via)
	if err == nil && (via != "socks5://"+u.Host || u.Hostname() == "") { // nothing but host and port, which are dialled as they stand
		err = errors.New("more or less than host and port")
	}
	port := 0
	if err == nil {
		port, err = strconv.Atoi(u.Port())
	}
	if err != nil || port < 1 || port > 65535 {
		return fmt.Errorf("%q is not socks5://host:port, such as socks5://127.0.0.1:9050", via)
	}
	return nil
}

func (c *Config) admins(n *yaml.Node) error {
	return each(n, "admins", func(n *yaml.Node) error {
		var jid string
		if err := text(n, &jid); err != nil {
			return err
		}
		if local, domain, ok := strings.Cut(jid, "@"); !ok || local == "" || domain == "" || strings.ContainsAny(jid, "/* ") {
			return at(n, "%q is no account, such as alice@example.org", jid)
		}
		c.Admins = append(c.Admins, strings.ToLower(jid))
		return nil
	})
}

func (c *Config) origins(n *yaml.Node) error {
	return each(n, "origins", func(n *yaml.Node) error {
		var origin string
		if err := text(n, &origin); err != nil {
			return err
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
			return at(n, "%q is not where a web page comes from, such as https://chat.example.org", origin)
		}
		c.Origins = append(c.Origins, strings.ToLower(origin))
		return nil
	})
}

func (d *Domain) settings(n *yaml.Node) error {
	return mapping(n, "a domain", fields{
		"connect": func(n *yaml.Node) error { return address(n, &d.Connect) },
		"tls": func(n *yaml.Node) error {
			return word(n, (*string)(&d.TLS), string(TLSAuto), string(TLSStartTLS), string(TLSDirect))
		},
		"trust": func(n *yaml.Node) error {
			return word(n, (*string)(&d.Trust), string(TrustPin), string(TrustCA), string(TrustCAPin), string(TrustDANE), string(TrustTOFU))
		},
		"pins": func(n *yaml.Node) error {
			return each(n, "pins", func(n *yaml.Node) error {
				var s string
				if err := text(n, &s); err != nil {
					return err
				}
				p, err := ParsePin(s)
				if err != nil {
					return at(n, "%v", err)
				}
				d.Pins = append(d.Pins, p)
				return nil
			})
		},
		"via": func(n *yaml.Node) error {
			if err := text(n, &d.Via); err != nil || d.Via == "" {
				return err
			}
			if err := CheckVia(d.Via); err != nil {
				return at(n, "%v", err)
			}
			return nil
		},
		"plain_upstream": func(n *yaml.Node) error { return boolean(n, &d.PlainUpstream) },
	})
}

func (c *Config) otr(n *yaml.Node) error {
	return each(n, "otr", func(n *yaml.Node) error {
		r := Rule{Account: "*", Contact: "*", Allow: defaultAllow, Line: n.Line}
		err := mapping(n, "a rule of otr", fields{
			"account": func(n *yaml.Node) error { return pattern(n, &r.Account) },
			"contact": func(n *yaml.Node) error { return pattern(n, &r.Contact) },
			"policy": func(n *yaml.Node) error {
				names := make([]string, len(policies))
				for i, p := range policies {
					names[i] = string(p)
				}
				return word(n, (*string)(&r.Policy), names...)
			},
			"versions": func(n *yaml.Node) error {
				r.Versions = []int{}
				err := each(n, "versions", func(n *yaml.Node) error {
					var v int
					if err := number(n, &v, 2, 3); err != nil {
						return at(n, "%q is not an OTR version that is spoken here; write 2 or 3", n.Value)
					}
					r.Versions = append(r.Versions, v)
					return nil
				})
				if err == nil && len(r.Versions) == 0 {
					return at(n, "versions needs at least one of 2 and 3; for no OTR at all write policy: never")
				}
				return err
			},
			"reason": func(n *yaml.Node) error { return sentence(n, &r.Reason) },
			"clear": func(n *yaml.Node) error {
				var s string
				err := word(n, &s, "mark", "drop")
				r.Drop = s == "drop"
				return err
			},
			"allow": func(n *yaml.Node) error {
				r.Allow = []Allow{}
				return each(n, "allow", func(n *yaml.Node) error {
					names := make([]string, len(allows))
					for i, a := range allows {
						names[i] = string(a)
					}
					var s string
					if err := word(n, &s, names...); err != nil {
						return err
					}
					r.Allow = append(r.Allow, Allow(s))
					return nil
				})
			},
		})
		if err != nil {
			return err
		}
		if r.Policy == "" {
			return at(n, "a rule of otr needs a policy: never, manual, opportunistic, require or require-verified")
		}
		c.OTR = append(c.OTR, r)
		return nil
	})
}

func (c *Config) access(n *yaml.Node) error {
	return each(n, "access", func(n *yaml.Node) error {
		a := Access{Account: "*", Line: n.Line}
		err := mapping(n, "a line of access", fields{
			"account": func(n *yaml.Node) error { return pattern(n, &a.Account) },
			"from": func(n *yaml.Node) error {
				return each(n, "from", func(n *yaml.Node) error {
					p, err := network(n.Value)
					if err != nil {
						return at(n, "%q is neither an address nor a network, such as 192.168.1.7 or 192.168.1.0/24", n.Value)
					}
					a.From = append(a.From, p)
					return nil
				})
			},
			"refuse": func(n *yaml.Node) error {
				if err := sentence(n, &a.Refuse); err != nil || a.Refuse != "" {
					return err
				}
				return at(n, "refuse needs the reason, which is shown to whom it concerns")
			},
		})
		if err == nil {
			c.Access = append(c.Access, a)
		}
		return err
	})
}

// network reads an address or a network.
func network(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

// sentence is a line for people.
func sentence(n *yaml.Node, to *string) error {
	if err := text(n, to); err != nil {
		return err
	}
	if len(*to) > 300 || strings.ContainsFunc(*to, unicode.IsControl) {
		return at(n, "this must be one line of at most 300 characters")
	}
	return nil
}

func each(n *yaml.Node, what string, f func(*yaml.Node) error) error {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return at(n, "%s must be a list", what)
	}
	for _, v := range n.Content {
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

func scalar(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return at(n, "a single value is expected here")
	}
	return nil
}

func text(n *yaml.Node, to *string) error {
	if err := scalar(n); err != nil {
		return err
	}
	if n.Tag == "!!null" {
		*to = ""
		return nil
	}
	*to = n.Value
	return nil
}

func filePath(n *yaml.Node, to *string) error {
	if err := text(n, to); err != nil {
		return err
	}
	if *to == "" {
		return at(n, "state needs the path of a directory")
	}
	return nil
}

func pattern(n *yaml.Node, to *string) error {
	if err := text(n, to); err != nil {
		return err
	}
	if *to == "" || strings.ContainsAny(*to, "/ ") {
		return at(n, "%q is not a pattern of bare JIDs, such as *@example.org", *to)
	}
	return nil
}

func word(n *yaml.Node, to *string, words ...string) error {
	if err := scalar(n); err != nil {
		return err
	}
	if !slices.Contains(words, n.Value) {
		return at(n, "%q is not one of: %s", n.Value, strings.Join(words, ", "))
	}
	*to = n.Value
	return nil
}

func boolean(n *yaml.Node, to *bool) error {
	if err := scalar(n); err != nil {
		return err
	}
	if n.Tag != "!!bool" {
		return at(n, "%q is neither true nor false", n.Value)
	}
	*to = n.Value == "true" || n.Value == "True" || n.Value == "TRUE"
	return nil
}

func number(n *yaml.Node, to *int, low, high int) error {
	if err := scalar(n); err != nil {
		return err
	}
	v, err := strconv.Atoi(n.Value)
	if err != nil || v < low || v > high {
		return at(n, "%q is not a whole number from %d to %d", n.Value, low, high)
	}
	*to = v
	return nil
}

var sizeForm = regexp.MustCompile(`^(\d{1,12})\s*(B|KiB|MiB|GiB|kB|MB|GB)?$`)

func size(n *yaml.Node, to *int, low, high int) error {
	if err := scalar(n); err != nil {
		return err
	}
	m := sizeForm.FindStringSubmatch(n.Value)
	if m == nil {
		return at(n, "%q is not a size, such as 256KiB or 1MiB", n.Value)
	}
	v, _ := strconv.ParseFloat(m[1], 64)
	v *= map[string]float64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 1e3, "MB": 1e6, "GB": 1e9}[m[2]]
	if v < float64(low) || v > float64(high) || v > math.MaxInt32 {
		return at(n, "%q is not between %d and %d bytes", n.Value, low, high)
	}
	*to = int(v)
	return nil
}

// durationOrNone is duration, and 0 for never.
func durationOrNone(n *yaml.Node, to *time.Duration, low, high time.Duration) error {
	if n.Kind == yaml.ScalarNode && (n.Value == "0" || n.Value == "0s") {
		*to = 0
		return nil
	}
	return duration(n, to, low, high)
}

func duration(n *yaml.Node, to *time.Duration, low, high time.Duration) error {
	if err := scalar(n); err != nil {
		return err
	}
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return at(n, "%q is not a duration, such as 30s or 10m", n.Value)
	}
	if v < low || v > high {
		return at(n, "%q is not between %s and %s", n.Value, low, high)
	}
	*to = v
	return nil
}

func address(n *yaml.Node, to *string) error {
	if err := text(n, to); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(*to)
	p, perr := strconv.Atoi(port)
	if err != nil || perr != nil || p < 0 || p > 65535 || strings.ContainsAny(host, "/ ") {
		return at(n, "%q is not an address, host:port", *to)
	}
	return nil
}

func offOrAddress(n *yaml.Node, to *string) error {
	if err := text(n, to); err != nil || *to == "" {
		return err
	}
	return address(n, to)
}
