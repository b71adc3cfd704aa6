package sasl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"otrproxy/proxy/state"
)

// A Strength is what a login to a server was worth: whether the password stayed here, and
// whether the login was bound to its very connection. A server that has offered the one
// does not fall behind it unless somebody is in between.
type Strength uint8

// strengthOf is that of a mechanism.
func strengthOf(mechanism string) Strength {
	switch {
	case strings.Contains(mechanism, "-PLUS"):
		return byBinding
	case strings.HasPrefix(mechanism, "SCRAM-"):
		return byProof
	}
	return byPassword
}

// A LoginMemory is login.yaml.
type LoginMemory struct {
	Strength  string    `yaml:"strength"`
	Mechanism string    `yaml:"mechanism"` // of the strongest login so far
	Since     time.Time `yaml:"since"`
}

// LoginsOf is what is remembered of an account's logins; nil for nothing.
func (lo *Logins) LoginsOf(account string) (*LoginMemory, error) {
	path := lo.loginPath(account, loginFile)
	b, err := state.ReadPrivate(path)
	if err != nil || b == nil {
		return nil, err
	}
	m := &LoginMemory{}
	if err := yaml.Unmarshal(b, m); err != nil || !slices.Contains(strengths, m.Strength) {
		return nil, fmt.Errorf("%s is damaged; restore it from a backup, or remove it to begin anew", path)
	}
	return m, nil
}

// Least is how strong an account's next login has to be.
func (lo *Logins) Least(account string) (Strength, *LoginMemory, error) {
	m, err := lo.LoginsOf(account)
	if err != nil || m == nil {
		return byPassword, m, err
	}
	return Strength(slices.Index(strengths, m.Strength)), m, nil
}

// loggedIn remembers a login.
func (lo *Logins) loggedIn(account, mechanism string) error {
	lo.remembering.Lock()
	defer lo.remembering.Unlock()
	s := strengthOf(mechanism)
	if before, m, err := lo.Least(account); err != nil || m != nil && before >= s {
		return err
	}
	b, err := yaml.Marshal(LoginMemory{strengths[s], mechanism, time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	return lo.saveLogin(account, loginFile, b)
}

// strongest is the strength of the best of a server's mechanisms that we know.
func strongest(mechs []string) (best Strength) {
	for _, name := range mechs {
		if MechanismOf(name) != nil {
			best = max(best, strengthOf(name))
		}
	}
	return best
}
