// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// runEtcd serves one etcd member until SIGTERM or SIGINT; its flags are some of etcd's own.
func runEtcd(arguments []string) error {
	config, err := etcdConfig(arguments)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()
	select {
	case <-stop:
		return nil
	case <-server.Server.StopNotify():
		return errors.New("the server stopped")
	case err := <-server.Err():
		return err
	}
}

func etcdConfig(arguments []string) (*embed.Config, error) {
	config := embed.NewConfig()
	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	flags.StringVar(&config.Name, "name", config.Name, "name of this member")
	flags.StringVar(&config.Dir, "data-dir", "default.etcd", "folder of the data")
	flags.StringVar(&config.InitialCluster, "initial-cluster", config.InitialCluster, "NAME=URL of this member")
	flags.StringVar(&config.LogLevel, "log-level", config.LogLevel, "debug, info, warn, error")
	flags.BoolVar(&config.UnsafeNoFsync, "unsafe-no-fsync", false, "never sync the data to disk")
	addURL(flags, "listen-client-urls", &config.ListenClientUrls)
	addURL(flags, "advertise-client-urls", &config.AdvertiseClientUrls)
	addURL(flags, "listen-peer-urls", &config.ListenPeerUrls)
	addURL(flags, "initial-advertise-peer-urls", &config.AdvertisePeerUrls)
	return config, flags.Parse(arguments)
}

func addURL(flags *flag.FlagSet, name string, target *[]url.URL) {
	flags.Func(name, "one URL", func(text string) error {
		address, err := url.Parse(text)
		if err == nil {
			*target = []url.URL{*address}
		}
		return err
	})
}
