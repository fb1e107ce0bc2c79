/* The least that reading a capture can cost: libpcap's loop over all packets, counting them. */
#include <pcap/pcap.h>
#include <stdio.h>

int main(int argc, char **argv) {
    char error[PCAP_ERRBUF_SIZE];
    pcap_t *file = argc == 2 ? pcap_open_offline(argv[1], error) : NULL;
    if (file == NULL) return 1;
    struct pcap_pkthdr *header;
    const u_char *bytes;
    unsigned long packets = 0, length = 0;
    while (pcap_next_ex(file, &header, &bytes) == 1) {
        packets++;
        length += header->len;
    }
    printf("%lu packets, %lu bytes\n", packets, length);
    pcap_close(file);
    return 0;
}
