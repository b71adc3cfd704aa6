package client

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/xdg-go/scram"

	"otrproxy/stanza"
)

// scram logs in by SCRAM (RFC 5802), and fails where the other side cannot prove itself.
func (c *Client) scram() error {
	fcn := map[string]scram.HashGeneratorFcn{"SCRAM-SHA-1": scram.SHA1, "SCRAM-SHA-256": scram.SHA256, "SCRAM-SHA-512": scram.SHA512}[strings.TrimSuffix(c.cfg.Mechanism, "-PLUS")]
	client, err := fcn.NewClient(c.user(), c.cfg.Password, "")
	if err != nil {
		return err
	}
	conv := client.NewConversation()
	switch {
	case c.cfg.Binding != "":
		b, err := c.binding()
		if err != nil {
			return err
		}
		conv = client.NewConversationWithChannelBinding(b)
	case c.cfg.Flag == "y":
		conv = client.NewConversationAdvertisingChannelBinding()
	}
	first, err := conv.Step("")
	if err != nil {
		return err
	}
	c.Send("<auth xmlns='" + stanza.NSSASL + "' mechanism='" + c.cfg.Mechanism + "'>" + base64.StdEncoding.EncodeToString([]byte(first)) + "</auth>")
	for {
		st, err := c.read()
		if err != nil {
			return err
		}
		if st.Is(stanza.NSSASL, "failure") {
			condition, text := failure(st)
			return &LoginError{condition, text}
		}
		data, err := base64.StdEncoding.DecodeString(st.Root().Text())
		if err != nil {
			return err
		}
		answer, err := conv.Step(string(data))
		if err != nil {
			return err
		}
		if st.Is(stanza.NSSASL, "success") {
			if !conv.Valid() {
				return errors.New("the other side has not proved itself")
			}
			return nil
		}
		c.Send(fmt.Sprintf("<response xmlns='%s'>%s</response>", stanza.NSSASL, base64.StdEncoding.EncodeToString([]byte(answer))))
	}
}

func (c *Client) binding() (scram.ChannelBinding, error) {
	cs := c.tls.ConnectionState()
	switch c.cfg.Binding {
	case "tls-exporter":
		return scram.NewTLSExporterBinding(&cs)
	case "tls-unique":
		return scram.NewTLSUniqueBinding(cs.TLSUnique), nil
	case "wrong": // that of another connection
		sum := sha256.Sum256([]byte("another"))
		return scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter, Data: sum[:]}, nil
	}
	return scram.NewTLSServerEndpointBinding(&cs)
}
