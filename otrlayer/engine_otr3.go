package otrlayer

// All that is known of github.com/coyim/otr3 stands in this file. Of it are used
// the key exchange and the data messages; not its key files (a damaged one
// hangs it), its policies, its fragments, its reaction to errors or its resending. What of its known
// defects can be met from outside is met here:
//
//   - Every exchange gets a fresh otr3.Conversation, so a stored message is never
//     resent to another key, a peer's key is never seen before its signature was
//     checked, and no query is ignored for a minute.
//   - D-H Commits that cross are settled by the caller (commitHash), for otr3
//     deadlocks on them.
//   - Truncated messages are refused before (parseHeader) and a panic inside ends
//     this one engine only.
//   - It prints noise on os.Stdout; cmd/otrproxy keeps that away from its output.

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/coyim/otr3"
)

type otr3Key struct{ *otr3.DSAPrivateKey }

func (k otr3Key) Fingerprint() Fingerprint {
	return Fingerprint(k.DSAPrivateKey.PublicKey().Fingerprint())
}

func (k otr3Key) newEngine(tag uint32) engine {
	e := &otr3Engine{conv: &otr3.Conversation{Rand: rand.Reader}}
	e.conv.Policies.AllowV3()
	e.conv.SetOurKeys([]otr3.PrivateKey{k.DSAPrivateKey})
	e.conv.InitializeInstanceTag(tag)
	e.conv.SetErrorMessageHandler(silent{})
	e.conv.SetSecurityEventHandler(e)
	return e
}

// silent answers no error with an error message.
type silent struct{}

func (silent) HandleErrorMessage(otr3.ErrorCode) []byte { return nil }

type otr3Engine struct {
	conv     *otr3.Conversation
	was      bool // has been encrypted
	finished bool
}

// HandleSecurityEvent notes the end of the session by the other side.
func (e *otr3Engine) HandleSecurityEvent(ev otr3.SecurityEvent) {
	switch ev {
	case otr3.GoneSecure:
		e.was = true
	case otr3.GoneInsecure:
		e.finished = e.was
	}
}

// guarded turns a panic of otr3 into an error. The engine is unusable afterwards.
func (e *otr3Engine) guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			e.conv = &otr3.Conversation{}
			err = errors.New("the OTR engine refused a malformed message")
		}
	}()
	return f()
}

func (e *otr3Engine) Commit() (msg string, err error) {
	err = e.guarded(func() error {
		_, out, err := e.conv.Receive(otr3.ValidMessage("?OTRv3?"))
		if err == nil && len(out) != 1 {
			err = errors.New("no D-H Commit message was made")
		}
		if err == nil {
			msg = string(out[0])
		}
		return err
	})
	return msg, err
}

func (e *otr3Engine) Receive(encoded string) (text string, ok bool, replies []string, err error) {
	err = e.guarded(func() error {
		plain, out, err := e.conv.Receive(otr3.ValidMessage(encoded))
		for _, m := range out {
			replies = append(replies, string(m))
		}
		if plain != nil {
			text, ok = string(plain), true
		}
		return err
	})
	if err != nil {
		return "", false, nil, err
	}
	return text, ok, replies, nil
}

func (e *otr3Engine) Encrypt(text string) (msg string, err error) {
	if !e.Encrypted() {
		return "", errors.New("there is no private session")
	}
	if strings.IndexByte(text, 0) >= 0 {
		return "", errors.New("a NUL character cannot be sent with OTR")
	}
	err = e.guarded(func() error {
		out, err := e.conv.Send(otr3.ValidMessage(text))
		if err == nil && (len(out) != 1 || !bytes.HasPrefix(out[0], []byte(encodedMark))) {
			err = errors.New("no data message was made")
		}
		if err == nil {
			msg = string(out[0])
		}
		return err
	})
	return msg, err
}

func (e *otr3Engine) End() (msg string, err error) {
	err = e.guarded(func() error {
		out, err := e.conv.End()
		if len(out) > 0 {
			msg = string(out[0])
		}
		return err
	})
	return msg, err
}

func (e *otr3Engine) Encrypted() bool { return e.conv.IsEncrypted() }
func (e *otr3Engine) Finished() bool  { return e.finished }

func (e *otr3Engine) Fingerprint() (fp Fingerprint) {
	if k := e.conv.GetTheirKey(); k != nil {
		copy(fp[:], k.Fingerprint())
	}
	return fp
}

func (e *otr3Engine) Forget() {
	_ = e.guarded(func() error { _, err := e.conv.End(); return err })
	e.conv = &otr3.Conversation{}
}

// generateKey makes a new long-term key; it takes up to some seconds.
func generateKey() (privateKey, error) {
	k := &otr3.DSAPrivateKey{}
	if err := k.Generate(rand.Reader); err != nil {
		return nil, fmt.Errorf("no OTR key could be generated: %w", err)
	}
	return otr3Key{k}, nil
}

// keyFrom makes a key of its numbers.
func keyFrom(n *dsaKey) privateKey {
	k := &otr3.DSAPrivateKey{}
	k.PrivateKey.P, k.PrivateKey.Q, k.PrivateKey.G, k.PrivateKey.Y, k.PrivateKey.X = n.p, n.q, n.g, n.y, n.x
	k.DSAPublicKey.PublicKey = k.PrivateKey.PublicKey
	return otr3Key{k}
}

// appendKey returns a libotr key file with one account's key added; what is in
// the file stays as it is.
func appendKey(file []byte, account string, key privateKey) ([]byte, error) {
	head := "(privkeys\n"
	if trimmed := bytes.TrimRight(file, " \t\r\n"); len(trimmed) > 0 {
		body, ok := bytes.CutSuffix(trimmed, []byte(")"))
		if !ok {
			return nil, errMalformed
		}
		head = string(body)
	}
	k := key.(otr3Key).PrivateKey
	var b strings.Builder
	fmt.Fprintf(&b, "%s (account\n(name %q)\n(protocol %s)\n(private-key \n (dsa \n", head, account, protocol)
	for _, p := range []struct {
		name string
		v    *big.Int
	}{{"p", k.P}, {"q", k.Q}, {"g", k.G}, {"y", k.Y}, {"x", k.X}} {
		hex := fmt.Sprintf("%X", p.v)
		if len(hex)%2 == 1 {
			hex = "0" + hex
		}
		if hex[0] >= '8' { // libgcrypt reads these numbers as signed
			hex = "00" + hex
		}
		fmt.Fprintf(&b, "  (%s #%s#)\n", p.name, hex)
	}
	b.WriteString("  )\n )\n )\n)\n")
	return []byte(b.String()), nil
}
