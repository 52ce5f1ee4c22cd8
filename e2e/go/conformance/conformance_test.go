// Package conformance makes a program of Gateway API's conformance suite, unmodified: `go test -c`.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
