package revenuesink.test;

import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;

/** Runs the statements of a file, as the SQL client does: SqlJob FILE. The last one is the INSERT. */
public final class SqlJob {
	private SqlJob() {
	}

	public static void main(String[] args) throws Exception {
		TableEnvironment env = TableEnvironment.create(EnvironmentSettings.inStreamingMode());

		for (String statement : Files.readString(Path.of(args[0])).replaceAll("(?m)^--.*$", "").split(";\\s*(\n|$)"))
			if (!statement.isBlank())
				env.executeSql(statement);
	}
}
