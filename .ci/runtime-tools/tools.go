//go:build tools

// Package tools names what .ci/validation builds of runtime-tools, so that go.mod and go.sum have what that needs.
//
// runtime-tools 0.9.0 has no go.mod of its own. It builds with runtime-spec 1.0.2, and with a release of selinux that
// still has label.FileLabel.
package tools

import (
	_ "github.com/opencontainers/runtime-tools/cmd/runtimetest"
	_ "github.com/opencontainers/runtime-tools/validation/util"
)
