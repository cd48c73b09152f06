package revenuesink.test;

import java.util.HashMap;
import java.util.Map;

/** --key value --key value ..; the last one of a key counts. (Flink's own class has moved from 1.20 to 2.) */
record Arguments(Map<String, String> values) {
	static Arguments of(String[] args) {
		Map<String, String> values = new HashMap<>();

		for (int i = 0; i < args.length; i += 2)
			values.put(args[i].substring(2), args[i + 1]);
		return new Arguments(values);
	}

	boolean has(String key) {
		return values.containsKey(key);
	}

	String get(String key) {
		if (!has(key))
			throw new IllegalArgumentException("--" + key + " is missing");
		return values.get(key);
	}

	int number(String key, int otherwise) {
		return has(key) ? Integer.parseInt(get(key)) : otherwise;
	}
}
