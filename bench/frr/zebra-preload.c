// Preloaded into zebra by tests on kernels that have neither MPLS nor VRF devices, so that a real FRR
// exchanges labels and VPN routes there and tells them over FPM. It is no way to run a gateway.
//
//  - stat("/proc/sys/net/mpls") succeeds: zebra then handles labels.
//  - The kernel's refusal of AF_MPLS routes, and of IPv6 routes by IPv4 next hops (VPNv6 over an IPv4 core),
//    becomes an acknowledgement, since zebra only passes on to FPM what was installed; label pushes are cut out of IP routes and next hops, so that the kernel gets
//    the plain route and the routing daemons reach each other.
//  - An interface of kind "bridge" is shown to zebra as a VRF device, its table being the bridge's forward
//    delay (both are attribute 1 of their kind). An interface belongs to the VRF whose index its group is
//    (`ip link set dev NAME group INDEX`).

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define TYPE(a) ((a)->rta_type & NLA_TYPE_MASK)

static int is_netlink(int fd)
{
	int domain = 0, saved = errno;
	socklen_t length = sizeof(domain);
	int failed = getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length);

	errno = saved;
	return !failed && domain == AF_NETLINK;
}

int stat(const char *path, struct stat *result)
{
	static int (*next)(const char *, struct stat *);

	if (!next)
		next = dlsym(RTLD_NEXT, "stat");
	return next(strcmp(path, "/proc/sys/net/mpls") ? path : "/proc/sys/net/ipv4", result);
}

// Shows a bridge as a VRF device, and a group as a VRF's membership.
static void disguise_link(struct nlmsghdr *message)
{
	struct ifinfomsg *link = NLMSG_DATA(message);
	struct rtattr *attribute = IFLA_RTA(link), *statistics = NULL, *info = NULL;
	unsigned int group = 0;
	int left = IFLA_PAYLOAD(message);

	if (link->ifi_family != AF_UNSPEC)
		return;
	for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
		if (TYPE(attribute) == IFLA_STATS)
			statistics = attribute;
		else if (TYPE(attribute) == IFLA_GROUP)
			memcpy(&group, RTA_DATA(attribute), sizeof(group));
		else if (TYPE(attribute) == IFLA_LINKINFO)
			info = attribute;
	}
	if (info) {
		struct rtattr *part = RTA_DATA(info);
		int rest = RTA_PAYLOAD(info);

		for (; RTA_OK(part, rest); part = RTA_NEXT(part, rest))
			if (TYPE(part) == IFLA_INFO_KIND && !strcmp(RTA_DATA(part), "bridge"))
				memcpy(RTA_DATA(part), "vrf\0\0\0", 7);
	}
	if (group && statistics && RTA_PAYLOAD(statistics) >= 28) {
		struct rtattr *out = statistics;
		int spare = RTA_ALIGN(statistics->rta_len) - 20;

		if (info)
			info->rta_type = IFLA_STATS;
		out->rta_type = IFLA_MASTER;
		out->rta_len = RTA_LENGTH(4);
		memcpy(RTA_DATA(out), &group, 4);
		out = (void *)((char *)out + 8);
		out->rta_type = IFLA_LINKINFO;
		out->rta_len = RTA_LENGTH(8);
		info = RTA_DATA(out);
		info->rta_type = IFLA_INFO_SLAVE_KIND;
		info->rta_len = RTA_LENGTH(4);
		memcpy(RTA_DATA(info), "vrf", 4);
		out = (void *)((char *)out + 12);
		out->rta_type = IFLA_STATS;
		out->rta_len = spare;
	}
}

ssize_t recvmsg(int fd, struct msghdr *into, int flags)
{
	static ssize_t (*next)(int, struct msghdr *, int);
	struct nlmsghdr *message;
	int left;

	if (!next)
		next = dlsym(RTLD_NEXT, "recvmsg");
	ssize_t length = next(fd, into, flags);

	if (length <= 0 || !into->msg_iovlen || !into->msg_iov[0].iov_base || !is_netlink(fd))
		return length;
	left = (size_t)length < into->msg_iov[0].iov_len ? length : (ssize_t)into->msg_iov[0].iov_len;
	for (message = into->msg_iov[0].iov_base; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
		if (message->nlmsg_type == RTM_NEWLINK || message->nlmsg_type == RTM_DELLINK)
			disguise_link(message);
		if (message->nlmsg_type == NLMSG_ERROR) {
			struct nlmsgerr *answer = NLMSG_DATA(message);
			int type = answer->msg.nlmsg_type;

			if ((type == RTM_NEWROUTE || type == RTM_DELROUTE)
			    && (answer->error == -EOPNOTSUPP || answer->error == -EAFNOSUPPORT
				|| answer->error == -EINVAL))
				answer->error = 0;
		}
	}
	return length;
}

// Copies attributes without those of two types; returns how many bytes were written.
static int copy_without(char *to, struct rtattr *attribute, int left, int type, int other)
{
	int written = 0;

	for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
		int kind = TYPE(attribute);

		if (kind == type || kind == other)
			continue;
		struct rtattr *copy = (void *)(to + written);

		memset(copy, 0, RTA_ALIGN(attribute->rta_len));
		memcpy(copy, attribute, attribute->rta_len);
		if (type == RTA_ENCAP && kind == RTA_MULTIPATH) {
			struct rtnexthop *way = RTA_DATA(attribute);
			int rest = RTA_PAYLOAD(attribute), at = sizeof(*copy);

			while (rest >= (int)sizeof(*way) && way->rtnh_len >= sizeof(*way) && way->rtnh_len <= rest) {
				struct rtnexthop *out = (void *)((char *)copy + at);

				memmove(out, way, sizeof(*way));
				out->rtnh_len = sizeof(*way)
					+ copy_without((char *)out + sizeof(*way), RTNH_DATA(way),
						       way->rtnh_len - sizeof(*way), type, other);
				at += RTNH_ALIGN(out->rtnh_len);
				rest -= RTNH_ALIGN(way->rtnh_len);
				way = RTNH_NEXT(way);
			}
			copy->rta_len = at;
		}
		written += RTA_ALIGN(copy->rta_len);
	}
	return written;
}

ssize_t sendmsg(int fd, const struct msghdr *from, int flags)
{
	static ssize_t (*next)(int, const struct msghdr *, int);

	if (!next)
		next = dlsym(RTLD_NEXT, "sendmsg");
	if (from->msg_iovlen != 1 || !is_netlink(fd))
		return next(fd, from, flags);

	int left = from->msg_iov[0].iov_len, written = 0, saved;
	struct nlmsghdr *message = from->msg_iov[0].iov_base;
	char *copy = calloc(1, left + NLMSG_ALIGNTO);
	struct iovec vector = { copy, 0 };
	struct msghdr changed = *from;

	if (!copy)
		return next(fd, from, flags);
	for (; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
		struct nlmsghdr *out = (void *)(copy + written);
		int type = message->nlmsg_type, fixed = 0, cut = 0, also = 0;

		if (type == RTM_NEWROUTE || type == RTM_DELROUTE) {
			if (((struct rtmsg *)NLMSG_DATA(message))->rtm_family != AF_MPLS)
				fixed = sizeof(struct rtmsg), cut = RTA_ENCAP, also = RTA_ENCAP_TYPE;
		} else if (type == RTM_NEWNEXTHOP) {
			fixed = sizeof(struct nhmsg), cut = NHA_ENCAP, also = NHA_ENCAP_TYPE;
		}
		if (fixed) {
			memcpy(out, message, NLMSG_LENGTH(fixed));
			out->nlmsg_len = NLMSG_LENGTH(fixed)
				+ copy_without((char *)out + NLMSG_LENGTH(fixed),
					       (void *)((char *)message + NLMSG_LENGTH(fixed)),
					       message->nlmsg_len - NLMSG_LENGTH(fixed), cut, also);
		} else {
			memcpy(out, message, message->nlmsg_len);
		}
		written += NLMSG_ALIGN(out->nlmsg_len);
	}
	vector.iov_len = written;
	changed.msg_iov = &vector;
	ssize_t length = next(fd, &changed, flags);

	saved = errno;
	free(copy);
	errno = saved;
	// zebra compares what was sent with what it gave.
	return length < 0 ? length : (ssize_t)from->msg_iov[0].iov_len;
}
