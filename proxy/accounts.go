package proxy

import (
	"os"

	"otrproxy/otrlayer"
)

// An opening is an account that is just being read from the disk. Whoever wants it meanwhile
// waits for it, and nobody else.
type opening struct {
	done    chan struct{} // closed when the rest is set
	account *otrlayer.Account
	err     error
}

// account opens an account, or finds it open.
func (p *Proxy) account(jid string) (*otrlayer.Account, error) {
	p.mu.Lock()
	if a := p.accounts[jid]; a != nil {
		p.mu.Unlock()
		return a, nil
	}
	o, others := p.opening[jid]
	if !others {
		o = &opening{done: make(chan struct{})}
		p.opening[jid] = o
	}
	p.mu.Unlock()
	if others {
		<-o.done
		return o.account, o.err
	}
	defer close(o.done)
	p.keyFiles.RLock()
	defer p.keyFiles.RUnlock()
	o.account, o.err = p.fromDisk(jid)
	p.mu.Lock()
	defer p.mu.Unlock()
	if delete(p.opening, jid); o.err == nil {
		p.accounts[jid] = o.account
	}
	return o.account, o.err
}

// fromDisk reads an account.
func (p *Proxy) fromDisk(jid string) (*otrlayer.Account, error) {
	if p.vault.locked() { // also where there is no key yet: it could not be saved
		return nil, otrlayer.ErrLocked
	}
	if _, err := os.Stat(otrlayer.Dir(p.state.Dir, jid)); err != nil { // of one more, nobody knows whether it is enrolled
		p.offers.forget()
	}
	return otrlayer.Open(p.state.Dir, jid, p.settings(jid), accountEvents{p, jid}, p.vault, p.maker)
}
