// SPDX-License-Identifier: Apache-2.0

// Command dispatch-kube is etcd or kube-apiserver, after the name that it is called by.
// Tests start both under these names, so that a folder with the upstream programs serves as well.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	_ "k8s.io/component-base/logs/json/register" // --logging-format=json
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	program := filepath.Base(os.Args[0])
	var err error
	switch program {
	case "etcd":
		err = runEtcd(os.Args[1:])
	case "kube-apiserver":
		err = app.NewAPIServerCommand().Execute()
	default:
		err = fmt.Errorf("call it through a link named etcd or kube-apiserver, not %s", program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, program+":", err)
		os.Exit(1)
	}
}
