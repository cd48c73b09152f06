import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;

/**
 * Makes a topic. A third argument is the bytes a second that any one client may
 * read from then on: so there is a middle of the stream to be killed in.
 *
 *	Topic BOOTSTRAP TOPIC PARTITIONS
 *	Topic BOOTSTRAP --quota BYTES
 */
public final class Topic {
	private Topic() {
	}

	public static void main(String[] args) throws Exception {
		try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]))) {
			if (args[1].equals("--quota")) {
				// a null name is the default client id
				ClientQuotaEntity anyone = new ClientQuotaEntity(
						java.util.Collections.singletonMap(ClientQuotaEntity.CLIENT_ID, null));

				admin.alterClientQuotas(List.of(new ClientQuotaAlteration(anyone, List.of(
						new ClientQuotaAlteration.Op("consumer_byte_rate", Double.valueOf(args[2])))))).all().get();
			} else
				admin.createTopics(List.of(new NewTopic(args[1], Integer.parseInt(args[2]), (short) 1))).all().get();
		}
	}
}
