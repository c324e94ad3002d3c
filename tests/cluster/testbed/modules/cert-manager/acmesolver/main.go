// cert-manager's answer to an HTTP-01 challenge, as its pods give it.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/cert-manager/cert-manager/pkg/issuer/acme/http/solver"
	"github.com/cert-manager/cert-manager/pkg/logs"
)

func main() {
	one := &solver.HTTP01Solver{}
	flag.IntVar(&one.ListenPort, "listen-port", 8089, "where it listens")
	flag.StringVar(&one.Domain, "domain", "", "the name that is proved")
	flag.StringVar(&one.Token, "token", "", "of the challenge")
	flag.StringVar(&one.Key, "key", "", "the answer")
	flag.Parse()
	logs.InitLogs()
	defer logs.FlushLogs()
	if err := one.Listen(logs.Log); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
