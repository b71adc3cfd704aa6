module otrproxy

go 1.26.0

require (
	github.com/coyim/otr3 v0.0.0-20251201172118-4568b9acbc7c
	github.com/google/renameio/v2 v2.0.2
	go.yaml.in/yaml/v3 v3.0.5
	golang.org/x/net v0.62.0
)

require (
	github.com/awnumar/memcall v0.5.0 // indirect
	github.com/coyim/constbn v0.0.0-20251201142907-b19b950d1e1c // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)
