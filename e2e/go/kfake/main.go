// A small cluster of Kafka brokers for tests, in memory.
//
//	kfake [USER PASSWORD]
//
// Three brokers with the topic "logs", which has three partitions. Other topics are created when they are used. With
// USER and PASSWORD, brokers require SASL. The first line of the output has the addresses as a JSON list. A line with a
// JSON object follows for each record that a consumer of all topics gets. Each line of the input moves a partition of
// "logs" to another leader: PARTITION NODE. The program ends with its input.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// How soon the consumer notices a new topic.
const metadataAge = 200 * time.Millisecond

type record struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Key       *string `json:"key"`
	Value     string  `json:"value"`
	Timestamp int64   `json:"timestamp"`
}

func main() {
	options := []kfake.Opt{
		kfake.Ports(0, 0, 0), kfake.NumBrokers(3), kfake.SeedTopics(3, "logs"), kfake.AllowAutoTopicCreation(),
		kfake.DefaultNumPartitions(1),
	}
	consumer := []kgo.Opt{
		kgo.ConsumeRegex(), kgo.ConsumeTopics("^[a-z].*"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}
	if len(os.Args) == 3 {
		user, password := os.Args[1], os.Args[2]
		options = append(options, kfake.EnableSASL())
		for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
			options = append(options, kfake.Superuser(mechanism, user, password))
		}
		mechanism := scram.Auth{User: user, Pass: password}.AsSha512Mechanism()
		consumer = append(consumer, kgo.SASL(mechanism))
	}
	cluster, err := kfake.NewCluster(options...)
	check(err)
	output := json.NewEncoder(os.Stdout)
	check(output.Encode(cluster.ListenAddrs()))
	go move(cluster)
	consumer = append(consumer, kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.MetadataMinAge(metadataAge), kgo.MetadataMaxAge(metadataAge))
	client, err := kgo.NewClient(consumer...)
	check(err)
	for {
		client.PollFetches(context.Background()).EachRecord(func(got *kgo.Record) {
			line := record{Topic: got.Topic, Partition: got.Partition, Value: string(got.Value), Timestamp: got.Timestamp.UnixMilli()}
			if got.Key != nil {
				key := string(got.Key)
				line.Key = &key
			}
			check(output.Encode(line))
		})
	}
}

func move(cluster *kfake.Cluster) {
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		var partition, node int32
		_, err := fmt.Sscan(input.Text(), &partition, &node)
		check(err)
		check(cluster.MoveTopicPartition("logs", partition, node))
	}
	os.Exit(0)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
